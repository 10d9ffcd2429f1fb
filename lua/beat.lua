-- A worker's sign of life: for its jobs and for itself.
--
-- KEYS[1] stalling  set of ids that have to give a sign of life
-- KEYS[2] workers   sorted set, worker process → when it last beat, in ms
-- KEYS[3] cancelled sorted set, claim → when it was cancelled, in ms
-- ARGV[1]  worker       the worker process
-- ARGV[2]  lifetime_ms  how long a worker counts as living without a beat
-- ARGV[3…] jobs         id and claim of each job it runs
--
-- Returns the claims among them that were cancelled.
--
-- Bounded by its arguments; the registry forgets who is gone, and itself when nobody beats.

local stalling, workers, cancelled = unpack(KEYS)
local worker, lifetime_ms = unpack(ARGV, 1, 2)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', workers, string.format('%.0f', now), worker)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', string.format('%.0f', now - lifetime_ms))
redis.call('PEXPIRE', workers, lifetime_ms)

local ids, claims = {}, {}
for at = 3, #ARGV, 2 do
  ids[#ids + 1] = ARGV[at]
  claims[#claims + 1] = ARGV[at + 1]
end
if #ids == 0 then
  return {}
end
redis.call('SREM', stalling, unpack(ids))
local found = {}
if redis.call('EXISTS', cancelled) == 1 then
  for n, since in ipairs(redis.call('ZMSCORE', cancelled, unpack(claims))) do
    if since then
      found[#found + 1] = claims[n]
    end
  end
end
return found
