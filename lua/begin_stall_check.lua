-- Begins a stall check: passes the gate that lets one check in per interval (protocol/README.md, "Stall check").
--
-- KEYS[1] stallBlock  string with a TTL: the gate; while a check of several calls goes on, its token
-- KEYS[2] stalling    set of ids that were active at the last check and gave no sign of life since
-- KEYS[3] active      list of ids
-- KEYS[4] requeued    set of ids that the check has queued again
-- ARGV[1] token     of this check; never used before
-- ARGV[2] lease_ms  how long the gate is held from now, if no call of this check comes
--
-- Returns how many entries of active are to be looked at, 0 if no id is marked; -1 if another check holds
-- the gate. A call that is sent again finds its own token, and passes.
--
-- Nothing is queued again in this call: if Redis was suspended, signs of life that were sent meanwhile are
-- executed before this call's reply, and so before the next call.

local stall_block, stalling, active, requeued = unpack(KEYS)
local token, lease_ms = unpack(ARGV)

local is_any_silent = redis.call('SCARD', stalling) > 0 -- what may be refused comes before the gate is taken
local has_passed = redis.call('SET', stall_block, token, 'PX', lease_ms, 'NX')
if not has_passed and redis.pcall('GET', stall_block) ~= token then
  return -1
end
redis.call('UNLINK', requeued) -- of a check that came to no end
return is_any_silent and redis.call('LLEN', active) or 0
