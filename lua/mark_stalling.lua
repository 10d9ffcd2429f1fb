-- Second half of a stall check: asks every active job for a sign of life until the next check.
--
-- KEYS[1] stallBlock  string with a TTL: one check for the whole fleet in that time
-- KEYS[2] stalling    set of ids
-- KEYS[3] active      list of ids
-- ARGV[1] interval_ms  the stall interval
-- ARGV[2] start        where in active to begin
-- ARGV[3] limit        how many ids to mark, at most
--
-- Returns where to go on, or -1 after the last id.
--
-- Bounded by its limit. Every call holds the gate for a whole interval from now: no check may
-- come sooner after the last mark, or a healthy worker would have no time to beat. An id that slips past
-- because active changes between two calls is marked by the next check.

local stall_block, stalling, active = unpack(KEYS)
local interval_ms, start, limit = unpack(ARGV)
start, limit = tonumber(start), tonumber(limit)

redis.call('SET', stall_block, '1', 'PX', interval_ms)
local ids = redis.call('LRANGE', active, start, start + limit - 1)
if #ids > 0 then
  redis.call('SADD', stalling, unpack(ids))
end
return #ids == limit and start + limit or -1
