-- Moves due jobs from delayed to the back of the queue, earliest first.
--
-- KEYS[1] delayed  sorted set, id → due time in ms
-- KEYS[2] waiting  list of ids
-- KEYS[3] hidden   list of ids that wait, while they are hidden from Node peers
-- ARGV[1] debounce_ms  due times this close after the next one are raised with it
-- ARGV[2] limit        how many jobs to move at most
--
-- Returns {raised, next, now, is_any_hidden}: how many jobs were moved; when to look again, in whole ms as text, 2^53
-- at most, or "-1" if nothing is delayed (a time that has passed means: call again, there is more); Redis's clock; 1 if
-- there are hidden ids: the caller looks whether they have to come back.
--
-- Bounded by its limit. The clock is Redis's own, so peers with wrong clocks raise nothing
-- early. Two callers share the work; an id is moved once.
-- Reads come first: while its slot moves to another node, a key that the script has emptied is out of reach.

-- A score may be infinite (a retry strategy of a Node worker that returns Infinity writes it): never due.
local LATEST = 9007199254740992

local delayed, waiting, hidden = unpack(KEYS)
local debounce_ms, limit = unpack(ARGV)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)

local is_any_hidden = redis.call('EXISTS', hidden)
local due = redis.call('ZRANGEBYSCORE', delayed, 0, now_text, 'LIMIT', 0, limit)
local head = redis.call('ZRANGEBYSCORE', delayed, 0, '+inf', 'WITHSCORES', 'LIMIT', #due, 1)
local next_due = '-1'
if #head > 0 then
  local head_ms = math.min(tonumber(head[2]), LATEST)
  next_due = string.format('%.0f', head_ms)
  if head_ms > now and head_ms < LATEST then
    local last = redis.call('ZREVRANGEBYSCORE', delayed, string.format('%.17g', head_ms + debounce_ms), 0, 'WITHSCORES', 'LIMIT', 0, 1)
    next_due = string.format('%.0f', math.min(math.ceil(tonumber(last[2])), LATEST))
  end
end

if #due > 0 then
  redis.call('LPUSH', waiting, unpack(due))
  redis.call('ZREM', delayed, unpack(due))
end
return { #due, next_due, now_text, is_any_hidden }
