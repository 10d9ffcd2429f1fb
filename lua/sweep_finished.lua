-- Drops notes of ended jobs that Node peers have removed or retried since.
--
-- KEYS[1] succeeded      set of ids
-- KEYS[2] failed         set of ids
-- KEYS[3] jobs           hash, id → record
-- KEYS[4] succeededAt    sorted set, id → when a worker has recorded that the job succeeded (drop_finished.lua)
-- KEYS[5] failedAt       sorted set, the same of jobs that have failed
-- KEYS[6] seenSuccess  sorted set, id → when the job was first seen succeeded
-- KEYS[7] seenFailure  sorted set, the same of jobs that have failed
-- ARGV[1] state  which jobs: "succeeded" or "failed"
-- ARGV[2] kind   which notes: "own" or "seen"
-- ARGV[3] start  where among them to go on, by rank
-- ARGV[4] count  how many to look at, at most
--
-- Returns where the next call goes on; 0 at the end. Bounded by its count.
--
-- They would be dropped when they are due; until then they would count among the jobs that are kept.

local succeeded, failed, jobs, succeeded_at, failed_at, seen_success, seen_failure = unpack(KEYS)
local state, kind, start, count = unpack(ARGV)
local is_success = state == 'succeeded'
local notes = is_success and succeeded_at or failed_at
if kind == 'seen' then
  notes = is_success and seen_success or seen_failure
end

local ids = redis.call('ZRANGE', notes, start, start + count - 1)
if not ids[1] then
  return 0
end
local are_finished = redis.call('SMISMEMBER', is_success and succeeded or failed, unpack(ids))
local gone = {}
for n, id in ipairs(ids) do
  if are_finished[n] == 0 or redis.call('HEXISTS', jobs, id) == 0 then
    gone[#gone + 1] = id
  end
end
if gone[1] then
  redis.call('ZREM', notes, unpack(gone))
end
return #ids < tonumber(count) and 0 or start + #ids - #gone
