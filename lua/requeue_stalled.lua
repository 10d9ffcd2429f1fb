-- First half of a stall check: queues again the jobs that the previous check marked and that gave no sign of
-- life since (protocol/README.md, "Stall check").
--
-- KEYS[1]  stallBlock  string with a TTL: the token of the check that goes on
-- KEYS[2]  stalling    set of ids that were active at the last check and gave no sign of life since
-- KEYS[3]  waiting     list of ids
-- KEYS[4]  active      list of ids
-- KEYS[5]  jobs        hash, id → record
-- KEYS[6]  claims      hash, id → token.place:deliveries
-- KEYS[7]  succeeded   set of ids
-- KEYS[8]  failed      set of ids
-- KEYS[9]  delayed     sorted set, id → due time in ms
-- KEYS[10] requeued    set of ids that this check has queued again
-- KEYS[11] outbox      stream of changed ids, for the mirror
-- KEYS[12] hidden      list of ids that wait, before all of waiting, while they are hidden from Node peers
-- ARGV[1] token         of the check
-- ARGV[2] lease_ms      how long the gate is held from now
-- ARGV[3] limit         how many entries of active to look at, at most
-- ARGV[4] outbox_limit  how many changes the outbox holds at most, "0" to note none
--
-- Returns {holds, seen, ids}: 0 if the token is gone, then nothing was done; how many entries of active were
-- looked at, 0 if it is empty; the ids that were queued again.
--
-- Without its token a check has been overtaken: what stalling holds then may be the fresh marks of another one,
-- Node's too, and their workers had no time to beat.
--
-- Bounded by its limit, however long active is: a call takes the right end of active, the oldest claims, and puts
-- what stays at the left end. So the entries that a check found are all looked at once, and in the end are in the
-- same order, claims of meanwhile among them. A worker that beats between two calls takes its id out of stalling
-- in time: ids are looked at and moved in the same step.
--
-- Stalled ids go to the back: a job that kills its worker must not starve the others. The claim loses its token,
-- not its count, so a late finish is refused and deliveries go on counting. An id without a record is dropped.
-- What may be refused (a key of the wrong type) comes before a job leaves active. How often a job may stall is
-- not asked here: the worker that claims it too often fails it.

local stall_block, stalling, waiting, active, jobs, claims, succeeded, failed, delayed, requeued, outbox, hidden = unpack(KEYS)
local token, lease_ms, limit, outbox_limit = unpack(ARGV)

if redis.pcall('GET', stall_block) ~= token then
  return { 0, 0, {} }
end
redis.call('SET', stall_block, token, 'PX', lease_ms)
local page = redis.call('LRANGE', active, '-' .. limit, -1)
if #page == 0 then
  return { 1, 0, {} }
end
local silent = redis.call('SMISMEMBER', stalling, unpack(page))
local seen_before = redis.call('SMISMEMBER', requeued, unpack(page))
local holders = redis.call('HMGET', claims, unpack(page))

-- Entries of lists that one call searches for ids that are in active twice: a few milliseconds' worth.
local LONGEST_WALK = 50000
local length, walked, copies = redis.call('LLEN', active), 0, {}

-- Whether an entry, of an id that this check has queued again already, is one too many: the other copy has
-- gone back, and this one would make the job run twice. It stays where it may be the claim of a worker
-- that has taken the job since.
local function is_surplus(id, holder)
  if not holder or string.sub(holder, 1, 1) == ':' then -- nobody, or a Node worker
    if
      redis.call('HEXISTS', jobs, id) == 0
      or redis.call('SISMEMBER', succeeded, id) == 1
      or redis.call('SISMEMBER', failed, id) == 1
      or redis.call('ZSCORE', delayed, id)
    then
      return true
    end
    for _, queue in ipairs({ waiting, hidden }) do
      local place = redis.call('LPOS', queue, id)
      walked = walked + (place or redis.call('LLEN', queue))
      if place then
        return true
      end
    end
  end
  if not copies[id] then
    copies[id] = #redis.call('LPOS', active, id, 'COUNT', 0)
    walked = walked + length
  end
  copies[id] = copies[id] - 1
  return copies[id] > 0
end

local ids, kept, stalled, tokenless, ghosts = {}, {}, {}, {}, {}
local is_done, seen = {}, 0
for n = #page, 1, -1 do -- the oldest first
  local id = page[n]
  seen = seen + 1
  if silent[n] == 1 then
    if not is_done[id] then
      is_done[id] = true
      stalled[#stalled + 1] = id
      if redis.call('HEXISTS', jobs, id) == 0 then
        ghosts[#ghosts + 1] = id
      else
        ids[#ids + 1] = id
        if holders[n] then
          tokenless[#tokenless + 1] = id
          tokenless[#tokenless + 1] = ':' .. (string.match(holders[n], ':(%d+)$') or '0')
        end
      end
    end
  elseif seen_before[n] == 0 or not is_surplus(id, holders[n]) then
    kept[#kept + 1] = id
  end
  if walked > LONGEST_WALK then
    break
  end
end

if #ids > 0 then
  redis.call('LPUSH', waiting, unpack(ids))
end
if #kept < seen or seen < length then -- else it would be as before
  redis.call('LTRIM', active, 0, -seen - 1)
  if #kept > 0 then
    redis.call('LPUSH', active, unpack(kept))
  end
end
if #stalled > 0 then
  redis.call('SADD', requeued, unpack(stalled))
  redis.call('SREM', stalling, unpack(stalled))
end
redis.call('PEXPIRE', requeued, lease_ms)
if #tokenless > 0 then
  redis.call('HSET', claims, unpack(tokenless))
end
if #ghosts > 0 then
  redis.call('HDEL', claims, unpack(ghosts))
end
if outbox_limit ~= '0' then
  for _, id in ipairs(ids) do
    redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id)
  end
end
return { 1, seen, ids }
