-- Drops what beeq keeps beside jobs that Node peers have finished or removed since.
--
-- KEYS[1] claims     hash, id → token.place:deliveries
-- KEYS[2] results    hash, id → result or error text
-- KEYS[3] expiries   sorted set, id → when its result may go, in ms
-- KEYS[4] jobs       hash, id → record
-- KEYS[5] succeeded  set of ids
-- KEYS[6] failed     set of ids
-- KEYS[7] active     list of ids
-- ARGV[1] claims_cursor   where in claims to go on
-- ARGV[2] results_cursor  where in results to go on
-- ARGV[3] count           how many fields to look at, about
--
-- Returns the two cursors to go on with; "0" when a hash has been seen whole.
--
-- Bounded by its count, and by how many jobs run for each id that has ended and was claimed. A claim
-- without a job claims nothing, so nothing here is needed for correctness. But an id in a set of ended ones
-- may run all the same, where Node has queued it once more than needed: its claim stays, or its outcome
-- would find no owner.

local claims, results, expiries, jobs, succeeded, failed, active = unpack(KEYS)
local claims_cursor, results_cursor, count = unpack(ARGV)

local page = redis.call('HSCAN', claims, claims_cursor, 'COUNT', count)
for at = 1, #page[2], 2 do
  local id = page[2][at]
  local has_ended = redis.call('SISMEMBER', succeeded, id) == 1 or redis.call('SISMEMBER', failed, id) == 1
  if redis.call('HEXISTS', jobs, id) == 0 or (has_ended and not redis.call('LPOS', active, id)) then
    redis.call('HDEL', claims, id)
  end
end
local next_claims = page[1]

page = redis.call('HSCAN', results, results_cursor, 'COUNT', count)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 1, #page[2], 2 do
  local id = page[2][at]
  local expiry = redis.call('ZSCORE', expiries, id)
  -- Where there is a record the result goes with it; an expiry is of an earlier job of that id.
  if redis.call('HEXISTS', jobs, id) == 0 and (not expiry or tonumber(expiry) <= now) then
    redis.call('HDEL', results, id)
    redis.call('ZREM', expiries, id)
  end
end
return { next_claims, page[1] }
