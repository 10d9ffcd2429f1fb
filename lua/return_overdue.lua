-- Gives jobs back that a worker has claimed ahead and not begun in time: to the front of the queue, as if never taken.
--
-- KEYS[1] waiting   list of ids; workers pop right
-- KEYS[2] active    list of ids
-- KEYS[3] stalling  set of ids
-- KEYS[4] jobs      hash, id → record
-- KEYS[5] claims    hash, id → token.place:deliveries
-- KEYS[6] outbox    stream of changed ids, for the mirror
-- KEYS[7] hidden    list of ids that wait, before all of waiting, while they are hidden from Node peers
-- KEYS[8] ahead     sorted set, "<claim> <id>" of a job claimed ahead that has not begun → until when it is to, in ms
-- ARGV[1] outbox_limit  how many changes the outbox holds at most, "0" to note none
-- ARGV[2] limit         how many jobs to look at, at most
--
-- Returns {given_back, left}: how many jobs went back, and how many are still claimed ahead, of any worker.
--
-- Any worker of the queue may call this: a worker gives back its own sooner, unless its process does not run.
-- It reports to Redis when one begins, so what is here has not begun. Bounded by limit, and by LONGEST_WALK:
-- each id is looked
-- for in active. A job that has another owner by now, or is not in active, is left alone; one without a record is
-- dropped. Only first deliveries are claimed ahead, and one that never began does not count. What may be refused
-- (waiting of the wrong type) comes before the job leaves active.

local waiting, active, stalling, jobs, claims, outbox, hidden, ahead = unpack(KEYS)
local outbox_limit, limit = unpack(ARGV)

-- Entries of active that one call passes by at most, looking for its ids: some milliseconds' worth.
local LONGEST_WALK = 250000
local longest = math.max(1, math.floor(LONGEST_WALK / math.max(1, redis.call('LLEN', active))))
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local count = math.min(tonumber(limit), longest)
local overdue = redis.call('ZRANGEBYSCORE', ahead, '-inf', now, 'LIMIT', 0, count)
local queue = redis.call('LLEN', hidden) > 0 and hidden or waiting
local given_back = 0
for n = #overdue, 1, -1 do
  local claim, id = string.match(overdue[n], '^(%S+) (.*)$')
  if redis.call('HGET', claims, id) == claim and redis.call('LPOS', active, id) then
    redis.call('SREM', stalling, id)
    if redis.call('HEXISTS', jobs, id) == 1 then
      redis.call('RPUSH', queue, id)
      if outbox_limit ~= '0' then
        redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id)
      end
      given_back = given_back + 1
    end
    redis.call('LREM', active, 1, id)
    redis.call('HDEL', claims, id)
  end
  redis.call('ZREM', ahead, overdue[n])
end
return { given_back, redis.call('ZCARD', ahead) }
