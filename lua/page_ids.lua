-- Reads a page of ids that wait, run or are delayed, from where the last page ended. Writes nothing.
--
-- KEYS[1] waiting  list of ids; workers pop right
-- KEYS[2] active   list of ids; the oldest claim is at the right
-- KEYS[3] delayed  sorted set, id → due time in ms
-- KEYS[4] hidden   list of ids that wait, before all of waiting, while they are hidden from Node peers
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
-- more, all that was read is gone, and the start is next. Hidden ids are to the right of those in waiting, as if
-- they were one list: so they stay in their places when they are hidden, and when they come back.

local waiting, active, delayed, hidden = unpack(KEYS)
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
local hidden_count = state == 'waiting' and redis.call('LLEN', hidden) or 0

-- Returns so many entries at most that have so many others to their right, from left to right.
local function entries(skipped, most)
  local last = math.max(0, hidden_count - skipped)
  local right = last > 0 and redis.call('LRANGE', hidden, math.max(0, last - most), last - 1) or {}
  skipped = math.max(0, skipped - hidden_count)
  most = most - #right
  local left = most > 0 and redis.call('LRANGE', list, -skipped - most, -skipped - 1) or {}
  for _, id in ipairs(right) do
    left[#left + 1] = id
  end
  return left
end

-- Returns how many entries are at the right of the id's last one and itself, or nil if it is not among so many.
local function place_of(id, most)
  local place = hidden_count > 0 and redis.call('LPOS', hidden, id, 'RANK', -1, 'MAXLEN', most)
  if place then
    return hidden_count - place
  elseif hidden_count < most then
    place = redis.call('LPOS', list, id, 'RANK', -1, 'MAXLEN', most - hidden_count)
  end
  return place and hidden_count + redis.call('LLEN', list) - place
end

if #ARGV >= FIRST and entries(math.max(0, offset - 1), 1)[1] ~= ARGV[FIRST] then
  local is_anchor, found = {}, nil
  for at = FIRST, #ARGV, STEP do
    is_anchor[ARGV[at]] = true
  end
  local last = math.max(0, offset - NEAR)
  local near = entries(last, offset + NEAR - last)
  for n, id in ipairs(near) do -- the first that is met is the one that was read last
    if is_anchor[id] then
      found = last + #near - n + 1
      break
    end
  end
  if not found then
    found = place_of(ARGV[FIRST], offset + FARTHER)
  end
  offset = found or 0
end
local ids = entries(offset, count)
local page = {}
for n = #ids, 1, -1 do
  page[#page + 1] = ids[n]
end
return { offset, page }
