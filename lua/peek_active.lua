-- Looks at the id that came into active last, so that its job can begin while it is being claimed.
--
-- KEYS[1] active  list of ids; the newest is at the left
-- KEYS[2] jobs    hash, id → record
-- KEYS[3] claims  hash, id → token.place:deliveries
-- ARGV[1] longest_bytes  the longest record to return
--
-- Returns {id, record}. Returns nothing if active is empty, and if that job has no record, has a longer
-- one, was handed out before (how often decides whether it may run at all), or runs: its id was pushed twice.
--
-- Writes nothing. It is sent right behind a blocking move, and another client's move may have come
-- between: the caller compares the id with the one that was moved for it.

local active, jobs, claims = unpack(KEYS)
local longest_bytes = unpack(ARGV)

local id = redis.call('LINDEX', active, '0')
if not id or redis.call('HEXISTS', claims, id) == 1 then
  return false
end
if redis.call('LPOS', active, id, 'RANK', '2', 'MAXLEN', '1000') then
  return false
end
local size_bytes = redis.call('HSTRLEN', jobs, id)
if size_bytes == 0 or size_bytes > tonumber(longest_bytes) then
  return false
end
return { id, redis.call('HGET', jobs, id) }
