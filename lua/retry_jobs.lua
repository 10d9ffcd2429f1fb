-- Queues failed jobs again, many at once; each only if it is still what the caller has read.
--
-- KEYS[1] failed   set of ids
-- KEYS[2] waiting  list of ids
-- KEYS[3] jobs     hash, id → record
-- KEYS[4] claims   hash, id → token.place:deliveries
-- KEYS[5] results  hash, id → error text of the failure
-- KEYS[6] outbox   stream of changed ids, for the mirror
-- KEYS[7] failedAt sorted set, id → when the job failed; dropped later
-- ARGV[1]  outbox_limit  how many changes the outbox holds at most, "0" to note none
-- ARGV[2…] jobs          id of each job, its record as the caller read it, and the one to write
--
-- Returns for each job 1 if it was queued, 0 if it is not that failed job any more: then nothing of it was written.
--
-- Bounded by its arguments. Two callers: the second finds the id gone from failed, or another record. A call that
-- is sent again because its reply was lost finds the record that it would write, and says 1 of it. What may be
-- refused (a key of the wrong type) comes before anything is changed.

local failed, waiting, jobs, claims, results, outbox, failed_at = unpack(KEYS)
local call, ARGV = redis.call, ARGV
local FIRST, STEP = 2, 3
local outbox_limit = unpack(ARGV, 1, 1)

call('SCARD', failed)
call('LLEN', waiting)
for _, key in ipairs({ jobs, claims, results }) do
  call('HLEN', key)
end

local facts = {}
for at = FIRST, #ARGV, STEP do
  local id, seen, record = unpack(ARGV, at, at + STEP - 1)
  local current = call('HGET', jobs, id)
  local is_failed = call('SISMEMBER', failed, id) == 1
  local is_same = is_failed and current == seen
  if is_same then
    call('LPUSH', waiting, id)
    call('SREM', failed, id)
    call('HSET', jobs, id, record)
    call('HDEL', claims, id)
    call('HDEL', results, id)
    redis.pcall('ZREM', failed_at, id)
    if outbox_limit ~= '0' then
      redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id)
    end
  end
  facts[#facts + 1] = (is_same or (not is_failed and current == record)) and 1 or 0
end
return facts
