-- First half of a stall check: queues again the jobs that the previous check marked and that gave no sign of
-- life since (protocol/README.md, "Stall check").
--
-- KEYS[1] stallBlock  string with a TTL: one check for the whole fleet in that time
-- KEYS[2] stalling    set of ids that were active at the last check and gave no sign of life since
-- KEYS[3] waiting     list of ids
-- KEYS[4] active      list of ids
-- KEYS[5] jobs        hash, id → record
-- KEYS[6] claims      hash, id → token.place:deliveries
-- KEYS[7] outbox      stream of changed ids, for the mirror
-- ARGV[1] interval_ms   the stall interval
-- ARGV[2] first         "1" for the first call of a check: passes the gate; "" for the next ones: goes on
-- ARGV[3] limit         how many ids to look at, at most
-- ARGV[4] outbox_limit  how many changes the outbox holds at most, "0" to note none
--
-- Returns {passed, more, requeued}: 0 if another check holds the gate; 1 while stalling holds more
-- (call again); the ids that were queued again.
--
-- Bounded by its limit, and by LONGEST_WALK: each id is looked for in active. Stalled ids go to the back: a
-- job that kills its worker must not starve the others. The claim loses its token, not its count, so a late
-- finish is refused and deliveries go on counting. An id without a record is dropped. A worker that beats
-- between two calls takes its id out of stalling in time: ids are looked at and moved in the same step.
-- What may be refused (a key of the wrong type) comes before a job leaves active. How often a job may stall is
-- not asked here: the worker that claims it too often fails it.

local stall_block, stalling, waiting, active, jobs, claims, outbox = unpack(KEYS)
local interval_ms, first, limit, outbox_limit = unpack(ARGV)

if first == '1' and not redis.call('SET', stall_block, '1', 'PX', interval_ms, 'NX') then
  return { 0, 0, {} }
end

-- Entries of active that one call passes by at most, looking for its ids: some two milliseconds' worth.
local LONGEST_WALK = 250000
local length = math.max(1, redis.call('LLEN', active))
limit = math.max(1, math.min(limit, math.floor(LONGEST_WALK / length)))
local silent = redis.call('SRANDMEMBER', stalling, limit)
if #silent == 0 then
  return { 1, 0, {} }
end
local holders = redis.call('HMGET', claims, unpack(silent))
local requeued, stalled, ghosts, tokenless = {}, {}, {}, {}
for n, id in ipairs(silent) do
  if redis.call('LPOS', active, id) then
    stalled[#stalled + 1] = id
    if redis.call('HEXISTS', jobs, id) == 1 then
      requeued[#requeued + 1] = id
      if holders[n] then
        tokenless[#tokenless + 1] = id
        tokenless[#tokenless + 1] = ':' .. string.match(holders[n], ':(%d+)$')
      end
    else
      ghosts[#ghosts + 1] = id
    end
  end
end
if #requeued > 0 then
  redis.call('LPUSH', waiting, unpack(requeued))
end
for _, id in ipairs(stalled) do
  redis.call('LREM', active, 0, id)
end
redis.call('SREM', stalling, unpack(silent))
if #tokenless > 0 then
  redis.call('HSET', claims, unpack(tokenless))
end
if #ghosts > 0 then
  redis.call('HDEL', claims, unpack(ghosts))
end
if outbox_limit ~= '0' then
  for _, id in ipairs(requeued) do
    redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id)
  end
end
return { 1, redis.call('EXISTS', stalling), requeued }
