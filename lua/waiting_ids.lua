-- Reads some of the ids that wait, by their places. Writes nothing.
--
-- KEYS[1] waiting  list of ids; workers pop right
-- KEYS[2] hidden   list of ids that wait, before all of waiting, while they are hidden from Node peers
-- ARGV[1] first    as LRANGE has it, of both lists one behind the other: 0 was queued last, -1 runs next
-- ARGV[2] last     likewise; it is included
--
-- Returns the ids, the one queued last first.

local waiting, hidden = unpack(KEYS)
local first, last = unpack(ARGV)

local hidden_count = redis.call('LLEN', hidden)
if hidden_count == 0 then
  return redis.call('LRANGE', waiting, first, last)
end
local waiting_count = redis.call('LLEN', waiting)
local count = waiting_count + hidden_count
first, last = tonumber(first), tonumber(last)
first = math.max(0, first < 0 and count + first or first)
last = math.min(count - 1, last < 0 and count + last or last)
local ids = {}
if first < waiting_count and first <= last then
  ids = redis.call('LRANGE', waiting, first, math.min(last, waiting_count - 1))
end
if last >= waiting_count and first <= last then
  for _, id in ipairs(redis.call('LRANGE', hidden, math.max(0, first - waiting_count), last - waiting_count)) do
    ids[#ids + 1] = id
  end
end
return ids
