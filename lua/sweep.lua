-- Drops beeq's own entries for jobs that Node peers have finished or removed since.
--
-- KEYS[1] claims     hash, id → token.place:deliveries
-- KEYS[2] results    hash, id → result or error text, as long as the job is there
-- KEYS[3] jobs       hash, id → record
-- KEYS[4] succeeded  set of ids
-- KEYS[5] failed     set of ids
-- KEYS[6] active     list of ids
-- KEYS[7] swept      hash, claims → where in them the next call goes on
-- KEYS[8] attempts   hash, id → failed attempts of the job
-- ARGV[1] count        how many fields of each hash to look at, about
-- ARGV[2] lifetime_ms  how long the cursors are kept without a call
--
-- Returns 1 if it is worth going on at once: the end of the claims was not reached, and there are more of them than
-- jobs that run; or a tenth of the results, or attempts, that were looked at, and not all were, had no job.
--
-- The cursor is the fleet's: its processes go through the claims together, from call to call. Results and attempts may be large,
-- and HSCAN would bring them along: their ids are drawn at random.
--
-- Bounded by its count, and by LONGEST_WALK: each ended id with a claim is looked for in active. A claim without
-- a job claims nothing, so nothing here is needed for correctness. But an id in a set of ended ones may run
-- all the same, where Node has queued it once more than needed: its claim stays, or its outcome would find no
-- owner.

local claims, results, jobs, succeeded, failed, active, swept, attempts = unpack(KEYS)
local count, lifetime_ms = unpack(ARGV)

-- Entries of active that one call passes by at most, looking for its ids: a few milliseconds' worth.
local LONGEST_WALK = 50000
local length = redis.call('LLEN', active)
local searches = math.max(1, math.floor(LONGEST_WALK / math.max(1, length)))

local function has_ended(id)
  return redis.call('SISMEMBER', succeeded, id) == 1 or redis.call('SISMEMBER', failed, id) == 1
end

-- Whether an ended id does not run; false where the call has no time left to find out.
local function is_at_rest(id)
  searches = searches - 1
  return searches >= 0 and not redis.call('LPOS', active, id)
end

-- Goes on through a hash by a page, and drops the fields of which is_left says so.
local function sweep(key, field, is_left)
  local cursor = redis.call('HGET', swept, field) or ''
  local page = redis.call('HSCAN', key, string.match(cursor, '^%d+$') or '0', 'COUNT', count)
  for at = 1, #page[2], 2 do
    if is_left(page[2][at]) then
      redis.call('HDEL', key, page[2][at])
    end
  end
  if page[1] == '0' then
    redis.call('HDEL', swept, field)
    return false
  end
  redis.call('HSET', swept, field, page[1])
  redis.call('PEXPIRE', swept, lifetime_ms)
  return true
end

local has_more_claims = sweep(claims, 'claims', function(id)
  return redis.call('HEXISTS', jobs, id) == 0 or (has_ended(id) and is_at_rest(id))
end)

-- Drops fields without a job among some that are drawn; returns whether there are likely to be many more.
local function draw(key)
  local drawn, dropped = redis.call('HRANDFIELD', key, count), 0
  for _, id in ipairs(drawn) do
    if redis.call('HEXISTS', jobs, id) == 0 then
      dropped = dropped + redis.call('HDEL', key, id)
    end
  end
  return #drawn == tonumber(count) and dropped * 10 >= #drawn
end

local has_more_results = draw(results)
local has_more_attempts = draw(attempts)

return (has_more_results or has_more_attempts or (has_more_claims and redis.call('HLEN', claims) > length)) and 1 or 0
