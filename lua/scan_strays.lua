-- Reads a page of the records' ids, and returns those that are in no set of a queue. Writes nothing.
--
-- KEYS[1] jobs       hash, id → record
-- KEYS[2] delayed    sorted set, id → due time in ms
-- KEYS[3] succeeded  set of ids
-- KEYS[4] failed     set of ids
-- ARGV[1] cursor     of HSCAN
-- ARGV[2] count      how many ids to look at, about
-- ARGV[3] max_bytes  of the records that one call reads, about, where the server cannot leave them out
--
-- Returns {cursor, ids looked at, ids that are neither delayed nor in a set of ended jobs}: they wait, run, or are nowhere.
--
-- A server older than Redis 7.4 and Valkey 8 reads the records along with the ids: how long some of them are, drawn
-- at random, bounds the page then.

local jobs, delayed, succeeded, failed = unpack(KEYS)
local cursor, count, max_bytes = unpack(ARGV)
-- Records that are drawn to learn how long they are.
local DRAWN = 20

local step = 1
local page = redis.pcall('HSCAN', jobs, cursor, 'COUNT', count, 'NOVALUES')
if page.err then
  step = 2
  local longest = 1
  for _, id in ipairs(redis.call('HRANDFIELD', jobs, DRAWN)) do
    longest = math.max(longest, redis.call('HSTRLEN', jobs, id))
  end
  count = math.max(1, math.min(tonumber(count), math.floor(max_bytes / longest)))
  page = redis.call('HSCAN', jobs, cursor, 'COUNT', count)
end

local ids, strays = page[2], {}
for at = 1, #ids, step do
  local id = ids[at]
  local is_placed = redis.call('ZSCORE', delayed, id)
    or redis.call('SISMEMBER', failed, id) == 1
    or redis.call('SISMEMBER', succeeded, id) == 1
  if not is_placed then
    strays[#strays + 1] = id
  end
end
return { page[1], #ids / step, strays }
