-- Writes the record of a job that runs, for the worker that runs it.
--
-- KEYS[1] jobs    hash, id → record
-- KEYS[2] claims  hash, id → token.place:deliveries
-- ARGV[1] id
-- ARGV[2] claim of the caller
-- ARGV[3] record
--
-- Returns 1, or 0 if the job has another owner or no record by now: nothing was written.

local jobs, claims = unpack(KEYS)
local id, claim, record = unpack(ARGV)

if redis.call('HGET', claims, id) == claim and redis.call('HEXISTS', jobs, id) == 1 then
  redis.call('HSET', jobs, id, record)
  return 1
end
return 0
