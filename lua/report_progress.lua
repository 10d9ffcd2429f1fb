-- Publishes a job's progress and, for the worker that runs it, keeps it in the record.
--
-- KEYS[1] jobs    hash, id → record
-- KEYS[2] claims  hash, id → token.place:deliveries
-- ARGV[1] job_id   the job
-- ARGV[2] claim    of the caller, or "" if it does not run the job
-- ARGV[3] record   with the progress in it, or ""
-- ARGV[4] events   name of the events channel
-- ARGV[5] message  event message
--
-- Returns how many subscribers the message reached.
--
-- A caller that no longer owns the job, or never did, publishes but writes nothing: the record is the
-- owner's.

local jobs, claims = unpack(KEYS)
local job_id, claim, record, events, message = unpack(ARGV)

if claim ~= '' and redis.call('HGET', claims, job_id) == claim and redis.call('HEXISTS', jobs, job_id) == 1 then
  redis.call('HSET', jobs, job_id, record)
end
return redis.call('PUBLISH', events, message)
