-- Reads the newest entries of a queue's history. Writes nothing.
--
-- KEYS[1] minutes  hash, minute since the epoch → entry; "last" → the newest sample
-- KEYS[2] hours    hash, hour since the epoch → entry
-- ARGV[1] unit     "minutes" or "hours"
-- ARGV[2] count    how many units before the current one, at most 2000
--
-- Returns {Redis's clock in ms as text, the newest sample or "", the entries or ""}, oldest first; the last entry
-- is of the unit that has not ended yet. The entries are written in note_history.lua; what is longer than any of
-- them comes as "".

local minutes, hours = unpack(KEYS)
local unit, count = unpack(ARGV)
local MINUTE_MS, HOUR_MS, MOST = 60000, 3600000, 2000
local LONGEST_ENTRY = 4000

local function bounded(text)
  return text and #text <= LONGEST_ENTRY and text or ''
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local current = math.floor(now / (unit == 'hours' and HOUR_MS or MINUTE_MS))
local fields = {}
for field = current - math.min(count, MOST), current do
  fields[#fields + 1] = string.format('%.0f', field)
end
local found = redis.call('HMGET', unit == 'hours' and hours or minutes, unpack(fields))
local reply = { string.format('%.0f', now), bounded(redis.call('HGET', minutes, 'last')) }
for n = 1, #fields do
  reply[#reply + 1] = bounded(found[n])
end
return reply
