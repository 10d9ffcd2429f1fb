-- Reads how a job ended, all at one moment. Writes nothing.
--
-- KEYS[1] jobs       hash, id → record
-- KEYS[2] results    hash, id → result or error text
-- KEYS[3] succeeded  set of ids
-- KEYS[4] failed     set of ids
-- KEYS[5] active     list of ids
-- ARGV[1] job_id  the job
--
-- Returns {record or false, result or false, 1 if in succeeded, 1 if in failed, 1 if in active}.
--
-- The sets are asked because the record's word is not enough: after a Node peer's manual retry it
-- says "failed" until the next finish.

local jobs, results, succeeded, failed, active = unpack(KEYS)
local job_id = unpack(ARGV)

return {
  redis.call('HGET', jobs, job_id),
  redis.call('HGET', results, job_id),
  redis.call('SISMEMBER', succeeded, job_id),
  redis.call('SISMEMBER', failed, job_id),
  redis.call('LPOS', active, job_id) and 1 or 0,
}
