-- A worker's heartbeat, for its jobs and for itself. It renews claims, not ids: a job that another worker has
-- by now is not kept alive.
--
-- KEYS[1] stalling  set of ids that have to give a sign of life
-- KEYS[2] claims    hash, id → token.place:deliveries
-- KEYS[3] workers   sorted set, worker process → when it last beat, in ms; a channel too, on which a new one is named
-- KEYS[4] cancelled sorted set, claim → when it was cancelled, in ms
-- ARGV[1]  worker       the worker process
-- ARGV[2]  lifetime_ms  how long a worker counts as living without a beat
-- ARGV[3]  early        the claim among these whose job was started early and that may not be granted yet, or ""
-- ARGV[4…] jobs         id and claim of each job it runs
--
-- Returns {cancelled, lost, workers}: the claims among them that were cancelled, and those that are not the job's any
-- more; the early one is never among the lost. And how many worker processes live, this one among them.
--
-- Bounded by its arguments; the registry forgets processes without heartbeats, and expires when there are
-- none. A job that was started early stays alive while no worker has claimed it: the claiming call is on its
-- way. The losing orders: the job stalled (no token), another worker has it (other claim), it was removed, or
-- its outcome was recorded and that reply has not arrived yet (no claim): only the caller can distinguish the
-- last one.

local stalling, claims, workers, cancelled = unpack(KEYS)
local worker, lifetime_ms, early = unpack(ARGV, 1, 3)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('ZADD', workers, string.format('%.0f', now), worker) == 1 then
  redis.pcall('PUBLISH', workers, worker) -- a refusal costs no beat: the others see it in their own ones
end
redis.call('ZREMRANGEBYSCORE', workers, '-inf', string.format('%.0f', now - lifetime_ms))
redis.call('PEXPIRE', workers, lifetime_ms)
local living = redis.call('ZCARD', workers)

local ids, named = {}, {}
for at = 4, #ARGV, 2 do
  ids[#ids + 1] = ARGV[at]
  named[#named + 1] = ARGV[at + 1]
end
if #ids == 0 then
  return { {}, {}, living }
end

local ours, stopped, lost, is_cancelled = {}, {}, {}, {}
if redis.call('EXISTS', cancelled) == 1 then
  for n, since in ipairs(redis.call('ZMSCORE', cancelled, unpack(named))) do
    if since then
      is_cancelled[n] = true
      stopped[#stopped + 1] = named[n]
    end
  end
end
for n, holder in ipairs(redis.call('HMGET', claims, unpack(ids))) do
  if holder == named[n] or (not holder and named[n] == early) then
    ours[#ours + 1] = ids[n]
  elseif named[n] ~= early and not is_cancelled[n] then
    lost[#lost + 1] = named[n]
  end
end
if #ours > 0 then
  redis.call('SREM', stalling, unpack(ours))
end
return { stopped, lost, living }
