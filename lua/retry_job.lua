-- Queues a failed job again, by hand.
--
-- KEYS[1] failed   set of ids
-- KEYS[2] waiting  list of ids
-- KEYS[3] jobs     hash, id → record
-- KEYS[4] claims   hash, id → token.place:deliveries
-- KEYS[5] results  hash, id → error text of the failure
-- KEYS[6] outbox   stream of changed ids, for the mirror
-- KEYS[7] failedAt sorted set, id → when the job failed; dropped later
-- ARGV[1] job_id        the job
-- ARGV[2] seen          its record as the caller read it
-- ARGV[3] record        the one to write, which no longer says failed
-- ARGV[4] outbox_limit  how many changes the outbox holds at most, "0" to note none
--
-- Returns 1 if the job was queued, 0 if it is not a failed job, 2 if the record has changed since:
-- read it and call again.
--
-- Two callers: the second finds the id gone from failed and does nothing, so no id is queued twice
-- and none that runs, waits or was removed.

local failed, waiting, jobs, claims, results, outbox, failed_at = unpack(KEYS)
local job_id, seen, record, outbox_limit = unpack(ARGV)

if redis.call('SISMEMBER', failed, job_id) == 0 then
  return 0
end
local current = redis.call('HGET', jobs, job_id)
if not current then
  return 0
end
if current ~= seen then
  return 2
end
redis.call('HEXISTS', claims, job_id) -- of the wrong type: refused before anything is changed
redis.call('HEXISTS', results, job_id)
redis.call('LPUSH', waiting, job_id)
redis.call('SREM', failed, job_id)
redis.call('HSET', jobs, job_id, record)
redis.call('HDEL', claims, job_id)
redis.call('HDEL', results, job_id)
redis.pcall('ZREM', failed_at, job_id)
if outbox_limit ~= '0' then
  redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', job_id)
end
return 1
