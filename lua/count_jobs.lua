-- Counts a queue's jobs and its workers, all at one moment. Writes nothing.
--
-- KEYS[1] waiting    list of ids
-- KEYS[2] active     list of ids
-- KEYS[3] succeeded  set of ids
-- KEYS[4] failed     set of ids
-- KEYS[5] delayed    sorted set of ids
-- KEYS[6] id         string, counter of automatic ids
-- KEYS[7] jobs       hash, id → record
-- KEYS[8] workers    sorted set, worker process → when it last beat, in ms
-- KEYS[9] outbox     stream of changed ids, for the mirror
-- KEYS[10] hidden    list of ids that wait, before all of waiting, while they are hidden from Node peers
-- ARGV[1] lifetime_ms  how long a worker counts as living without a beat
-- ARGV[2] with_oldest  "1" to read the record of the job that has waited longest: it may be large
--
-- Returns {waiting, active, succeeded, failed, delayed, newest automatic id or "0", living workers,
-- record of the job that has waited longest or "", changes not yet mirrored or -1 where there is no
-- mirror, Redis's clock in ms as text}. A worker that beat far in the future did so before the clock went back.

local waiting, active, succeeded, failed, delayed, counter, jobs, workers, outbox, hidden = unpack(KEYS)
local lifetime_ms, with_oldest = unpack(ARGV)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hidden_count = redis.call('LLEN', hidden)
local oldest = with_oldest == '1' and redis.call('LINDEX', hidden_count > 0 and hidden or waiting, -1)
return {
  redis.call('LLEN', waiting) + hidden_count,
  redis.call('LLEN', active),
  redis.call('SCARD', succeeded),
  redis.call('SCARD', failed),
  redis.call('ZCARD', delayed),
  redis.call('GET', counter) or '0',
  redis.call('ZCOUNT', workers, string.format('%.0f', now - lifetime_ms), string.format('%.0f', now + lifetime_ms)),
  oldest and redis.call('HGET', jobs, oldest) or '',
  redis.call('EXISTS', outbox) == 1 and redis.call('XLEN', outbox) or -1,
  string.format('%.0f', now),
}
