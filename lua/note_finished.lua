-- Notes when ended jobs without a note were first seen: Node's, and those of workers that keep all.
--
-- KEYS[1] succeeded      set of ids
-- KEYS[2] failed         set of ids
-- KEYS[3] jobs           hash, id → record
-- KEYS[4] succeededAt    sorted set, id → when a worker has recorded that the job succeeded (drop_finished.lua)
-- KEYS[5] failedAt       sorted set, the same of jobs that have failed
-- KEYS[6] seenSuccess  sorted set, id → when the job was first seen succeeded, in ms, and its record's mark
-- KEYS[7] seenFailure  sorted set, the same of jobs that have failed
-- ARGV[1] state   which jobs: "succeeded" or "failed"
-- ARGV[2] cursor  where in the set to go on: "0", or what an earlier call has returned
-- ARGV[3] count   how many ids to look at, about
--
-- Returns {cursor, noted, missing}: "0" at the end of the set; how many were noted; how many more ended jobs there are
-- than notes, which may be less than 0: of jobs that are gone the notes stay a while.
--
-- Bounded by count, and LONGEST_MARKED: of a longer record only the length is read. An id without a record is
-- passed over.

local succeeded, failed, jobs, succeeded_at, failed_at, seen_success, seen_failure = unpack(KEYS)
local state, cursor, count = unpack(ARGV)
local LONGEST_MARKED = 4096
local finished = state == 'succeeded' and succeeded or failed
local own = state == 'succeeded' and succeeded_at or failed_at
local seen = state == 'succeeded' and seen_success or seen_failure

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local page = redis.call('SSCAN', finished, cursor, 'COUNT', count)
local ids, entries = page[2], {}
if ids[1] then
  local noted, noted_before = redis.call('ZMSCORE', own, unpack(ids)), redis.call('ZMSCORE', seen, unpack(ids))
  for n, id in ipairs(ids) do
    local length = (noted[n] or noted_before[n]) and 0 or redis.call('HSTRLEN', jobs, id)
    if length > 0 then
      local mark = length > LONGEST_MARKED and length
        or tonumber(string.sub(redis.sha1hex(redis.call('HGET', jobs, id)), 1, 8), 16)
      entries[#entries + 1] = now + mark % 2048 / 2048
      entries[#entries + 1] = id
    end
  end
end
if entries[1] then
  redis.call('ZADD', seen, unpack(entries))
end
local missing = redis.call('SCARD', finished) - redis.call('ZCARD', own) - redis.call('ZCARD', seen)
return { page[1], #entries / 2, missing }
