-- Moves delayed jobs to the back of the queue before they are due, many at once.
--
-- KEYS[1] delayed  sorted set, id → due time in ms
-- KEYS[2] waiting  list of ids
-- KEYS[3] jobs     hash, id → record
-- ARGV[1…] ids  id of each job, in the order in which they are to run
--
-- Returns for each id 1 if it was moved, 0 if it was not delayed any more, or had no record.
--
-- Bounded by its arguments. An id is moved once: the second caller, maybe a worker that raises due jobs,
-- does not find it. An id without a record is dropped. The record is left as it is: its due time
-- means nothing after the first activation.

local delayed, waiting, jobs = unpack(KEYS)

redis.call('LLEN', waiting) -- of the wrong type: refused before anything is changed
redis.call('HLEN', jobs)
local facts = {}
for at = 1, #ARGV, 1 do
  local id = ARGV[at]
  local was_delayed = redis.call('ZREM', delayed, id) == 1
  local is_moved = was_delayed and redis.call('HEXISTS', jobs, id) == 1
  if is_moved then
    redis.call('LPUSH', waiting, id)
  end
  facts[at] = is_moved and 1 or 0
end
return facts
