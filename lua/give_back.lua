-- Gives jobs back that their worker will not finish: to the front of the queue, as if never taken.
--
-- KEYS[1] waiting   list of ids; workers pop right
-- KEYS[2] active    list of ids
-- KEYS[3] stalling  set of ids
-- KEYS[4] jobs      hash, id → record
-- KEYS[5] claims    hash, id → token.place:deliveries
-- KEYS[6] outbox    stream of changed ids, for the mirror
-- KEYS[7] hidden    list of ids that wait, before all of waiting, while they are hidden from Node peers
-- ARGV[1]  outbox_limit  how many changes the outbox holds at most, "0" to note none
-- ARGV[2…] jobs          id and claim of each ("" for an id that a blocking move fetched and nobody claimed
--                        yet). The job to run first comes last.
--
-- Returns how many of the jobs it has looked at; the caller goes on with the others.
--
-- Bounded by its arguments, and by LONGEST_WALK: each id is looked for in active. A job that has another
-- owner by now, or is not in active, is left alone (this may be a call repeated after a lost reply, and
-- someone else has claimed the job since); one without a record is dropped. No retry is used, and the delivery
-- does not count. What may be refused (waiting of the wrong type) comes before the job leaves active.
-- The front of the queue is that of the hidden ids, where there are any.

local waiting, active, stalling, jobs, claims, outbox, hidden = unpack(KEYS)
local outbox_limit = unpack(ARGV, 1, 1)

-- Entries of active that one call passes by at most, looking for its ids: some milliseconds' worth.
local LONGEST_WALK = 250000
local longest = math.max(1, math.floor(LONGEST_WALK / math.max(1, redis.call('LLEN', active))))
local FIRST, STEP = 2, 2
local queue = redis.call('LLEN', hidden) > 0 and hidden or waiting
local last = math.min(#ARGV, FIRST - 1 + STEP * longest)
for at = FIRST, last, STEP do
  local id, claim = ARGV[at], ARGV[at + 1]
  local holder = redis.call('HGET', claims, id)
  local is_unclaimed = not holder or string.sub(holder, 1, 1) == ':'
  local is_ours = holder == claim or (claim == '' and is_unclaimed)
  if is_ours and redis.call('LPOS', active, id) then
    redis.call('SREM', stalling, id)
    local deliveries = holder and tonumber(string.match(holder, ':(%d+)$')) or 0
    if claim ~= '' then
      deliveries = deliveries - 1
    end
    if redis.call('HEXISTS', jobs, id) == 1 then
      redis.call('RPUSH', queue, id)
      if outbox_limit ~= '0' then
        redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id)
      end
    else
      deliveries = 0
    end
    redis.call('LREM', active, 1, id)
    if deliveries > 0 then
      redis.call('HSET', claims, id, ':' .. deliveries)
    elseif holder then
      redis.call('HDEL', claims, id)
    end
  end
end
return (last - FIRST + 1) / STEP
