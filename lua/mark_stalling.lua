-- Second half of a stall check: asks every active job for a sign of life until the next check.
--
-- KEYS[1] stallBlock  string with a TTL: the token of the check that goes on
-- KEYS[2] stalling    set of ids
-- KEYS[3] active      list of ids
-- KEYS[4] requeued    set of ids that this check has queued again
-- ARGV[1] token        of the check
-- ARGV[2] lease_ms     how long the gate is held from now, while there is more to mark
-- ARGV[3] interval_ms  the stall interval
-- ARGV[4] start        how many ids at the right end of active are marked; 0 in the first call
-- ARGV[5] limit        how many ids to mark, at most
--
-- Returns where to go on; -1 after the last id, -2 if the token is gone, then nothing was done.
--
-- Bounded by its limit. The last call holds the gate for a whole interval from now, as Node's check does, and
-- ends the token: no check may come sooner after the last mark, or a healthy worker would have no time to
-- beat. An id that slips past because active loses entries between two calls is marked by the next check.

local stall_block, stalling, active, requeued = unpack(KEYS)
local token, lease_ms, interval_ms, start, limit = unpack(ARGV)
start, limit = tonumber(start), tonumber(limit)

if redis.pcall('GET', stall_block) ~= token then
  return -2
end
if start == 0 then
  redis.call('UNLINK', stalling, requeued) -- the ids that are left in it are not active
end
local ids = redis.call('LRANGE', active, 0 - start - limit, -start - 1)
local is_last = #ids < limit
redis.call('SET', stall_block, is_last and '1' or token, 'PX', is_last and interval_ms or lease_ms)
if #ids > 0 then
  redis.call('SADD', stalling, unpack(ids))
end
return is_last and -1 or start + limit
