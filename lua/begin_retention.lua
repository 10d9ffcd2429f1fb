-- Begins a look for ended jobs to drop: of the workers with the same settings, one does it in an interval.
--
-- KEYS[1] retention      string with a TTL: what the worker keeps that looked last
-- KEYS[2] succeededAt    sorted set, id → when the job succeeded (drop_finished.lua)
-- KEYS[3] failedAt       sorted set, the same of jobs that have failed
-- KEYS[4] seenSuccess  sorted set, id → when the job was first seen succeeded
-- KEYS[5] seenFailure  sorted set, the same of jobs that have failed
-- ARGV[1] kept         what the caller keeps, as text
-- ARGV[2] interval_ms  how long no other worker that keeps the same needs to look
-- ARGV[3] notes_ms     how long the notes of ended jobs outlive the last call
--
-- Returns 1 if the caller is to look, 0 if another one does, or did. Workers with other settings have their
-- own turn. Nothing here is needed for correctness, so a refusal (no memory is left) does not prevent a look,
-- which frees some.

local retention, succeeded_at, failed_at, seen_success, seen_failure = unpack(KEYS)
local kept, interval_ms, notes_ms = unpack(ARGV)

for _, key in ipairs({ succeeded_at, failed_at, seen_success, seen_failure }) do
  redis.pcall('PEXPIRE', key, notes_ms)
end
if redis.pcall('GET', retention) == kept then
  return 0
end
redis.pcall('SET', retention, kept, 'PX', interval_ms)
return 1
