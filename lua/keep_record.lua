-- Writes the record of a job that runs, for the worker that runs it.
--
-- KEYS[1] jobs    hash, id → record
-- KEYS[2] claims  hash, id → token.place:deliveries
-- ARGV[1] job_id  the job
-- ARGV[2] claim   of the caller
-- ARGV[3] record  what to write
--
-- Returns 1, or 0 if the job has another owner or no record by now: nothing was written.

local jobs, claims = unpack(KEYS)
local job_id, claim, record = unpack(ARGV)

if redis.call('HGET', claims, job_id) == claim and redis.call('HEXISTS', jobs, job_id) == 1 then
  redis.call('HSET', jobs, job_id, record)
  return 1
end
return 0
