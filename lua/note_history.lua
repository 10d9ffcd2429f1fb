-- Adds to a queue's history: a worker's counts, and once a minute, for the first caller in it, how many jobs
-- there are.
--
-- KEYS[1] minutes    hash, minute since the epoch → entry; "last" → the newest sample
-- KEYS[2] hours      hash, hour since the epoch → entry
-- KEYS[3] waiting    list of ids
-- KEYS[4] active     list of ids
-- KEYS[5] delayed    sorted set of ids
-- KEYS[6] succeeded  set of ids
-- KEYS[7] failed     set of ids
-- KEYS[8] id         string, counter of automatic ids
-- KEYS[9] hidden     list of ids that wait, while they are hidden from Node peers
-- KEYS[10] jobs      hash, id → record
-- ARGV[1] counts     an entry: what the caller has counted since its last call, or ""
-- ARGV[2] is_worker  "1": there is a queue, for a worker works on it; "": only if it has any key is there one
--
-- Returns in how many ms the next minute begins, in which a sample is due.
--
-- An entry is three texts with ";" between them: numbers with "," between them, named below, and how often a
-- job's wait, and an attempt's duration, was in each bucket: the first bucket's number, ":", and the counts from
-- there on. All are added up but the most that waited. What the sets have grown by since the sample before is of
-- the minute before; after more than three minutes it is unknown of which, and it is left out.
--
-- The losing orders: of two callers in one minute the second samples nothing; after a clock went back, what was
-- noted of its future goes. Bounded: a day of minutes and thirty days of hours are kept, some 40 buckets each.
-- Another program may have written anything here: a longer entry, or a sample of a minute that no exact number
-- has, counts as none; from there on a loop over minutes would not end.

local minutes, hours, waiting, active, delayed, succeeded, failed, counter, hidden, jobs = unpack(KEYS)
local counts, is_worker = unpack(ARGV)
local MINUTE_MS, KEPT_MINUTES, KEPT_HOURS = 60000, 1440, 720
local MINUTES_MS, HOURS_MS = 90000000, 2678400000
local NUMBERS, MOST_WAITING, LAST_BUCKET = 12, 8, 63
local CLOSE, SMALL_STEP_BACK = 3, 2
local LONGEST_ENTRY, LARGEST_EXACT = 4000, 2 ^ 53

local function parsed(text)
  local entry = { {}, {}, {} }
  if not text or #text > LONGEST_ENTRY then
    return entry
  end
  local sections = {}
  for section in string.gmatch(text .. ';', '([^;]*);') do
    sections[#sections + 1] = section
  end
  local at = 0
  for number in string.gmatch((sections[1] or '') .. ',', '([^,]*),') do
    at = at + 1
    entry[1][at] = tonumber(number)
  end
  for n = 2, 3 do
    local first, rest = string.match(sections[n] or '', '^(%d+):(.*)$')
    local bucket = tonumber(first)
    for count in string.gmatch((rest or '') .. ',', '([^,]*),') do
      if bucket and bucket <= LAST_BUCKET then
        entry[n][bucket] = tonumber(count)
        bucket = bucket + 1
      end
    end
  end
  return entry
end

local function added(one, other)
  for at = 1, NUMBERS do
    local here, there = one[1][at] or 0, other[1][at] or 0
    one[1][at] = at == MOST_WAITING and math.max(here, there) or here + there
  end
  for n = 2, 3 do
    for bucket, count in pairs(other[n]) do
      one[n][bucket] = (one[n][bucket] or 0) + count
    end
  end
  return one
end

local function written(values, first, last)
  local texts = {}
  for at = first, last do
    local value = values[at] or 0
    texts[#texts + 1] = value == 0 and '' or string.format('%.0f', value)
  end
  return table.concat(texts, ',')
end

local function as_text(entry)
  local texts = { written(entry[1], 1, NUMBERS) }
  for n = 2, 3 do
    local first, last
    for bucket = 0, LAST_BUCKET do
      if (entry[n][bucket] or 0) > 0 then
        first, last = first or bucket, bucket
      end
    end
    texts[n] = first and string.format('%d:', first) .. written(entry[n], first, last) or ''
  end
  return table.concat(texts, ';')
end

local function add(key, field, entry)
  local name = string.format('%.0f', field)
  redis.call('HSET', key, name, as_text(added(parsed(redis.call('HGET', key, name)), entry)))
end

local function forget(key, first, last)
  local fields = {}
  for field = first, last do
    fields[#fields + 1] = string.format('%.0f', field)
  end
  if #fields > 0 then
    redis.call('HDEL', key, unpack(fields))
  end
end

local function hour_of(minute)
  return math.floor(minute / 60)
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local minute = math.floor(now / MINUTE_MS)
local next_ms = MINUTE_MS - now % MINUTE_MS
if
  is_worker ~= '1'
  and redis.call('EXISTS', minutes, jobs, counter, waiting, active, delayed, succeeded, failed, hidden) == 0
then
  return next_ms
end

local before = {}
for number in string.gmatch(string.sub(redis.call('HGET', minutes, 'last') or '', 1, LONGEST_ENTRY), '%d+') do
  before[#before + 1] = tonumber(number)
end
if #before < 5 or before[1] >= LARGEST_EXACT then
  before = nil
end
if before and before[1] - SMALL_STEP_BACK > minute then
  local hour = hour_of(minute)
  forget(minutes, math.max(minute + 1, before[1] - KEPT_MINUTES), before[1])
  forget(hours, math.max(hour + 1, hour_of(before[1]) - KEPT_HOURS), hour_of(before[1]))
  before = nil
end

local is_due = not before or before[1] < minute
if is_due then
  local waits = redis.call('LLEN', waiting) + redis.call('LLEN', hidden)
  local runs, delays = redis.call('LLEN', active), redis.call('ZCARD', delayed)
  local has_succeeded, has_failed = redis.call('SCARD', succeeded), redis.call('SCARD', failed)
  local newest = math.max(tonumber(redis.call('GET', counter) or '0') or 0, 0)
  local unfinished = waits + runs + delays
  if before then
    local hour, last_hour = hour_of(minute), hour_of(before[1])
    forget(minutes, before[1] - KEPT_MINUTES, math.min(before[1], minute - KEPT_MINUTES))
    forget(hours, last_hour - KEPT_HOURS, math.min(last_hour, hour - KEPT_HOURS))
    if minute - before[1] <= CLOSE then
      local grown = { {}, {}, {} }
      grown[1][9] = math.max(newest - before[4], 0)
      grown[1][10] = math.max(has_succeeded - before[2], 0)
      grown[1][11] = math.max(has_failed - before[3], 0)
      grown[1][12] = unfinished - before[5]
      add(minutes, minute - 1, grown)
      add(hours, hour_of(minute - 1), grown)
    end
  end
  local sample = { { 0, 0, 0, 1, waits, runs, delays, waits }, {}, {} }
  add(minutes, minute, sample)
  add(hours, hour_of(minute), sample)
  local last = string.format('%.0f,%.0f,%.0f,%.0f,%.0f', minute, has_succeeded, has_failed, newest, unfinished)
  redis.call('HSET', minutes, 'last', last)
  redis.call('PEXPIRE', minutes, MINUTES_MS)
  redis.call('PEXPIRE', hours, HOURS_MS)
end
if counts ~= '' then
  local entry = parsed(counts)
  add(minutes, minute, entry)
  add(hours, hour_of(minute), entry)
end
return next_ms
