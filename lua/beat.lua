-- A worker's sign of life: for its jobs (protocol section 4.9) and for itself.
--
-- KEYS[1] stalling  set of ids that have to give a sign of life
-- KEYS[2] workers   sorted set, worker process → when it last beat, in ms
-- ARGV[1] worker process
-- ARGV[2] how long a worker counts as living without a beat, in ms
-- ARGV[3…] ids of the jobs it runs
--
-- Returns how many ids had been waited for.
--
-- Bounded by its arguments; the registry forgets who is gone, and itself when nobody beats.

local stalling, workers = unpack(KEYS)
local worker, lifetime_ms = unpack(ARGV)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', workers, string.format('%.0f', now), worker)
redis.call('ZREMRANGEBYSCORE', workers, '-inf', string.format('%.0f', now - lifetime_ms))
redis.call('PEXPIRE', workers, lifetime_ms)

local ids = {}
for at = 3, #ARGV do
  ids[#ids + 1] = ARGV[at]
end
return #ids > 0 and redis.call('SREM', stalling, unpack(ids)) or 0
