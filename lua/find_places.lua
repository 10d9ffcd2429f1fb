-- Finds where ids are: whether each has a record, and the lists and sets that it is in. Writes nothing.
--
-- KEYS[1] jobs       hash, id → record
-- KEYS[2] waiting    list of ids
-- KEYS[3] hidden     list of ids that wait, hidden from Node peers
-- KEYS[4] active     list of ids
-- KEYS[5] delayed    sorted set, id → due time in ms
-- KEYS[6] succeeded  set of ids
-- KEYS[7] failed     set of ids
-- ARGV[1]  with_lists  "1" to search the lists, too: for each id all that waits and runs is passed by
-- ARGV[2…] ids         each id
--
-- Returns seven digits for each id: how often it is in jobs, waiting, hidden, active, delayed, succeeded and failed; 2 means
-- twice or more often. The digits of the lists are 0 where they are not searched.
--
-- Bounded by its arguments: without the lists by their number, with them by that times the lists' length; the
-- caller asks for few then.

local jobs, waiting, hidden, active, delayed, succeeded, failed = unpack(KEYS)
local with_lists = unpack(ARGV, 1, 1)
local FIRST, STEP = 2, 1

local function times_in(list, id)
  return with_lists == '1' and #redis.call('LPOS', list, id, 'COUNT', 2) or 0
end

local found = {}
for at = FIRST, #ARGV, STEP do
  local id = ARGV[at]
  found[#found + 1] = redis.call('HEXISTS', jobs, id)
    .. times_in(waiting, id)
    .. times_in(hidden, id)
    .. times_in(active, id)
    .. (redis.call('ZSCORE', delayed, id) and 1 or 0)
    .. redis.call('SISMEMBER', succeeded, id)
    .. redis.call('SISMEMBER', failed, id)
end
return found
