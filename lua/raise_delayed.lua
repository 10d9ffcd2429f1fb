-- Moves due jobs from delayed to the back of the queue, earliest first.
--
-- KEYS[1] delayed  sorted set, id → due time in ms
-- KEYS[2] waiting  list of ids
-- ARGV[1] debounce_ms  due times this close after the next one are raised with it
-- ARGV[2] limit        how many jobs to move at most
--
-- Returns {raised, next, now}: how many jobs were moved; when to look again, in ms as text, or "-1"
-- if nothing is delayed (a time that has passed means: call again, there is more); Redis's clock.
--
-- Bounded by its limit. The clock is Redis's own, so peers with wrong clocks raise nothing
-- early. Two callers share the work; an id is moved once.
-- Reads come first: while its slot moves to another node, a key that the script has emptied is out of reach.

local delayed, waiting = unpack(KEYS)
local debounce_ms, limit = unpack(ARGV)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)

local due = redis.call('ZRANGEBYSCORE', delayed, 0, now_text, 'LIMIT', 0, limit)
local head = redis.call('ZRANGEBYSCORE', delayed, 0, '+inf', 'WITHSCORES', 'LIMIT', #due, 1)
local next_due = '-1'
if #head > 0 then
  local head_ms = tonumber(head[2])
  next_due = string.format('%.0f', head_ms)
  if head_ms > now then
    local last = redis.call('ZREVRANGEBYSCORE', delayed, string.format('%.17g', head_ms + debounce_ms), 0, 'WITHSCORES', 'LIMIT', 0, 1)
    next_due = string.format('%.0f', math.ceil(tonumber(last[2])))
  end
end

if #due > 0 then
  redis.call('LPUSH', waiting, unpack(due))
  redis.call('ZREM', delayed, unpack(due))
end
return { #due, next_due, now_text }
