-- Moves misplaced ids to where they belong, each only if it is still where it was seen.
--
-- KEYS[1] jobs       hash, id → record
-- KEYS[2] waiting    list of ids
-- KEYS[3] hidden     list of ids that wait, hidden from Node peers
-- KEYS[4] active     list of ids
-- KEYS[5] delayed    sorted set, id → due time in ms
-- KEYS[6] succeeded  set of ids
-- KEYS[7] failed     set of ids
-- KEYS[8] stalling   set of ids that have to give a sign of life
-- KEYS[9] claims     hash, id → token.place:deliveries
-- ARGV[1]  wanted  where the ids are to be: the name of one of these lists and sets, or "" for nowhere
-- ARGV[2…] jobs    id of each job, and where it was seen: the seven digits of find_places, with the lists
--
-- Returns 1 for each id that was repaired, 0 for one that is somewhere else by now.
--
-- An id in several places is taken out of all but the wanted one, where it stays as it is; in a list its copy
-- nearest to the right end stays, which is the next to run. One that is nowhere is put there: in waiting it comes last. One without a record is taken
-- out of all of them, and its claim goes. The losing order: the job moved, ended or was removed between the look and
-- this call. Then its digits are other ones, and nothing is done.
--
-- Bounded by its arguments times the lists' length; the caller names few where these are long.

local jobs, waiting, hidden, active, delayed, succeeded, failed, stalling, claims = unpack(KEYS)
local wanted = unpack(ARGV, 1, 1)
local FIRST, STEP = 2, 2

local function times_in(list, id)
  return #redis.call('LPOS', list, id, 'COUNT', 2)
end

local function places_of(id)
  return redis.call('HEXISTS', jobs, id)
    .. times_in(waiting, id)
    .. times_in(hidden, id)
    .. times_in(active, id)
    .. (redis.call('ZSCORE', delayed, id) and 1 or 0)
    .. redis.call('SISMEMBER', succeeded, id)
    .. redis.call('SISMEMBER', failed, id)
end

-- Leaves one copy in the list, or none. Each of these commands passes by the whole list: none more than needed.
local function thin_out(list, id, digit, is_wanted)
  local copies = tonumber(digit)
  if copies == 2 then
    copies = #redis.call('LPOS', list, id, 'COUNT', 0)
  end
  local surplus = is_wanted and copies - 1 or copies
  if surplus > 0 then
    redis.call('LREM', list, surplus, id)
  end
end

local function repair(id, seen)
  thin_out(waiting, id, string.sub(seen, 2, 2), wanted == 'waiting')
  thin_out(hidden, id, string.sub(seen, 3, 3), wanted == 'hidden')
  thin_out(active, id, string.sub(seen, 4, 4), wanted == 'active')
  if wanted ~= 'delayed' then
    redis.call('ZREM', delayed, id)
  end
  if wanted ~= 'succeeded' then
    redis.call('SREM', succeeded, id)
  end
  if wanted ~= 'failed' then
    redis.call('SREM', failed, id)
  end
  if wanted ~= 'active' then
    redis.call('SREM', stalling, id)
  end
end

local repaired = {}
for at = FIRST, #ARGV, STEP do
  local id, seen = ARGV[at], ARGV[at + 1]
  local is_same = places_of(id) == seen
  if is_same then
    repair(id, seen)
    if wanted == '' then
      redis.call('HDEL', claims, id)
    elseif seen == '1000000' then
      if wanted == 'waiting' then
        redis.call('LPUSH', waiting, id)
      else
        redis.call('SADD', wanted == 'succeeded' and succeeded or failed, id)
      end
    end
  end
  repaired[#repaired + 1] = is_same and 1 or 0
end
return repaired
