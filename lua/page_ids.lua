-- Reads a page of ids that wait, run or are delayed, from where the last page ended. Writes nothing.
--
-- KEYS[1] waiting  list of ids; workers pop right
-- KEYS[2] active   list of ids; the oldest claim is at the right
-- KEYS[3] delayed  sorted set, id → due time in ms
-- ARGV[1]  state    "waiting", "active" or "delayed"
-- ARGV[2]  count    how many ids to read at most
-- ARGV[3]  offset   of a list: how many entries lay to the right of the next one when the last page was read
-- ARGV[4]  due      of delayed: the due time of the last id that was read
-- ARGV[5…] anchors  ids that were read and have stayed since, the last one first; none: begin at the start
--
-- Returns {offset, ids}: where the page begins, and its ids in the order in which they run; of delayed each
-- with its due time behind it. No ids: that was the end.
--
-- Entries leave a list at the right, and their neighbours move. So a page begins behind the last anchor that is
-- found: near its old place, or by a search from the right end, some milliseconds' worth. If none is there any
-- more, all that was read is gone, and the start is next.

local waiting, active, delayed = unpack(KEYS)
local state, count, offset, due = unpack(ARGV, 1, 4)
local FIRST, STEP = 5, 1
count, offset = tonumber(count), tonumber(offset)
-- Entries on either side of the expected place in which the anchors are looked for first.
local NEAR = 500
-- Entries of a list that the search for the last anchor passes by at most, beyond its old place.
local FARTHER = 10000

if state == 'delayed' then
  local place
  for at = FIRST, #ARGV, STEP do
    place = place or redis.call('ZRANK', delayed, ARGV[at])
  end
  if place then
    place = place + 1
  elseif #ARGV >= FIRST then
    place = redis.call('ZCOUNT', delayed, '-inf', '(' .. due)
  else
    place = 0
  end
  return { place, redis.call('ZRANGE', delayed, place, place + count - 1, 'WITHSCORES') }
end

local list = state == 'waiting' and waiting or active
if #ARGV >= FIRST and redis.call('LINDEX', list, -offset) ~= ARGV[FIRST] then
  local is_anchor, found = {}, nil
  for at = FIRST, #ARGV, STEP do
    is_anchor[ARGV[at]] = true
  end
  local last = math.max(0, offset - NEAR)
  local near = redis.call('LRANGE', list, -offset - NEAR, -last - 1)
  for n, id in ipairs(near) do -- the first that is met is the one that was read last
    if is_anchor[id] then
      found = last + #near - n + 1
      break
    end
  end
  if not found then
    local place = redis.call('LPOS', list, ARGV[FIRST], 'RANK', -1, 'MAXLEN', offset + FARTHER)
    found = place and redis.call('LLEN', list) - place
  end
  offset = found or 0
end
local ids = redis.call('LRANGE', list, -offset - count, -offset - 1)
local page = {}
for n = #ids, 1, -1 do
  page[#page + 1] = ids[n]
end
return { offset, page }
