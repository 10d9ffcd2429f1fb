-- Ends a job that has not ended, wherever it is, and has the worker that runs it stop.
--
-- KEYS[1]  succeeded    set of ids
-- KEYS[2]  failed       set of ids
-- KEYS[3]  waiting      list of ids
-- KEYS[4]  active       list of ids
-- KEYS[5]  stalling     set of ids
-- KEYS[6]  jobs         hash, id → record
-- KEYS[7]  delayed      sorted set, id → due time in ms
-- KEYS[8]  claims       hash, id → token.place:deliveries
-- KEYS[9]  results      hash, id → result or error text, as long as the job is there
-- KEYS[10] evenResults  hash, id → due time in ms:result or error text, of dropped jobs; used in even
-- KEYS[11] oddResults   the same, in odd periods of keep_ms: either key goes by its TTL before its next turn
-- KEYS[12] cancelled    sorted set, claim → when it was cancelled, in ms; also the name of a channel
-- KEYS[13] outbox       stream of changed ids, for the mirror
-- KEYS[14] attempts     hash, id → failed attempts of the job
-- KEYS[15] hidden       list of ids that wait, before all of waiting, while they are hidden from Node peers
-- ARGV[1] job_id        the job
-- ARGV[2] keep          text to keep as its outcome
-- ARGV[3] keep_ms       how long to keep that
-- ARGV[4] memory_ms     how long a worker may take to hear of it
-- ARGV[5] events        name of the events channel
-- ARGV[6] message       event message
-- ARGV[7] outbox_limit  how many changes the outbox holds at most, "0" to note none
--
-- Returns 1 if the job was cancelled, 0 if it has ended, or never was: nothing was written.
--
-- The record is deleted, so the worker's outcome will be refused. The job's worker learns of it by the
-- channel, or by its next heartbeat; a Node worker does not, and runs the job to its end.
-- What may be refused (a key of the wrong type) comes before the job leaves a list.

local succeeded, failed, waiting, active, stalling, jobs, delayed, claims, results, even_results, odd_results, cancelled, outbox, attempts, hidden = unpack(KEYS)
local job_id, keep, keep_ms, memory_ms, events, message, outbox_limit = unpack(ARGV)
keep_ms = tonumber(keep_ms)
-- See exchange.lua: a key with results outlives its last entry by so much.
local GRACE_MS = 1000

local is_queued = redis.call('LPOS', active, job_id)
  or redis.call('ZSCORE', delayed, job_id)
  or redis.call('LPOS', waiting, job_id)
  or redis.call('LPOS', hidden, job_id)
local has_ended = redis.call('SISMEMBER', succeeded, job_id) == 1 or redis.call('SISMEMBER', failed, job_id) == 1
if redis.call('HEXISTS', jobs, job_id) == 0 or (has_ended and not is_queued) then
  return 0
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local claim = redis.call('HGET', claims, job_id)
for _, key in ipairs({ results, even_results, odd_results, attempts }) do
  redis.call('HDEL', key, job_id) -- what an earlier job of the id has left
end
local period = math.floor(now / keep_ms)
local kept = period % 2 == 0 and even_results or odd_results
local left_ms = redis.call('PTTL', kept)
if left_ms >= 0 and left_ms <= GRACE_MS then
  redis.call('UNLINK', kept)
  left_ms = -1
end
redis.call('HSET', kept, job_id, string.format('%.0f:', now + keep_ms) .. keep)
local expires_at = (period + 2) * keep_ms + GRACE_MS -- as long as an entry of the period's last moment needs
if left_ms < expires_at - now then
  redis.call('PEXPIREAT', kept, string.format('%.0f', expires_at))
end
if claim and string.sub(claim, 1, 1) ~= ':' then
  redis.call('ZADD', cancelled, string.format('%.0f', now), claim)
  redis.call('ZREMRANGEBYSCORE', cancelled, '-inf', string.format('%.0f', now - memory_ms))
  redis.call('PEXPIRE', cancelled, memory_ms)
  redis.call('PUBLISH', cancelled, claim)
end
if outbox_limit ~= '0' then
  local record = redis.call('HGET', jobs, job_id)
  redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', job_id, 'state', 'cancelled', 'record', record)
end
redis.call('LREM', waiting, 0, job_id)
redis.call('LREM', hidden, 0, job_id)
redis.call('LREM', active, 0, job_id)
redis.call('SREM', succeeded, job_id)
redis.call('SREM', failed, job_id)
redis.call('SREM', stalling, job_id)
redis.call('ZREM', delayed, job_id)
redis.call('HDEL', claims, job_id)
redis.call('HDEL', jobs, job_id)
redis.call('PUBLISH', events, message)
return 1
