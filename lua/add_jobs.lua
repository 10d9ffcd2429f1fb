-- Adds jobs, one or many, due now or later (protocol sections 4.1 and 4.2).
--
-- KEYS[1] id       string, counter of automatic ids
-- KEYS[2] jobs     hash, id → record
-- KEYS[3] waiting  list of ids; producers push left
-- KEYS[4] delayed  sorted set, id → due time in ms
-- KEYS[5] claims   hash, id → token:deliveries
-- KEYS[6] results  hash, id → what a job of that id left behind
-- KEYS[7] expiries sorted set, id → when its result may go, in ms
-- KEYS[8] outbox   stream of changed ids, for the mirror
-- ARGV[1] name of the earlierDelayed channel
-- ARGV[2] how many changes the outbox holds at most, "0" to note none
-- ARGV[3…] three for each job: id ("" for an automatic one), record, due time in ms ("" for now)
--
-- Returns a list with each job's id, or false where the id exists: then nothing was written.
--
-- Bounded by its arguments, and by how many of the next numbers are taken. Two callers with one id: the
-- script is one step, so the first wins and the other gets false. An automatic id that a user has taken already is passed over (flaw C1);
-- the counter is written with %.0f, for Lua's own text of 10^14 is "1e+14".
-- Claims and results of an earlier job of the same id (removed by a Node peer, which knows nothing
-- of them) are dropped: no old worker may finish this one (flaw A9).
-- Queueing comes last; if anything is refused (a key of the wrong type), the records are taken back.

local counter, jobs, waiting, delayed, claims, results, expiries, outbox = unpack(KEYS)
local earlier_delayed, outbox_limit = ARGV[1], ARGV[2]

local ids, added, ready, due = {}, {}, {}, {}

local function is_error(reply)
  return type(reply) == 'table' and reply.err
end

local function take_back(refused)
  if #added > 0 then
    redis.call('HDEL', jobs, unpack(added))
  end
  for at = 2, #due, 2 do
    redis.pcall('ZREM', delayed, due[at])
  end
  return refused
end

local function queue(id, due_ms)
  added[#added + 1] = id
  if due_ms == '' then
    ready[#ready + 1] = id
  else
    due[#due + 1] = due_ms
    due[#due + 1] = id
  end
end

-- Returns so many ids that nobody has taken, in ascending order, or Redis's error.
local function free_ids(count)
  local last = redis.pcall('INCRBY', counter, count)
  if is_error(last) then
    return nil, last
  end
  local numbers, free = {}, {}
  for number = last - count + 1, last do
    numbers[#numbers + 1] = string.format('%.0f', number)
  end
  for n, record in ipairs(redis.call('HMGET', jobs, unpack(numbers))) do
    if not record then
      free[#free + 1] = numbers[n]
    end
  end
  while #free < count do
    local id = string.format('%.0f', redis.call('INCR', counter))
    if redis.call('HEXISTS', jobs, id) == 0 then
      free[#free + 1] = id
    end
  end
  return free
end

-- Adds many jobs that all want automatic ids: with few commands, not with two for each.
local function add_numbered(count)
  local free, refused = free_ids(count)
  if refused then
    return refused
  end
  local records = {}
  for n, id in ipairs(free) do
    local at = 3 * n
    records[#records + 1] = id
    records[#records + 1] = ARGV[at + 1]
    queue(id, ARGV[at + 2])
    ids[n] = id
  end
  redis.call('HSET', jobs, unpack(records))
end

-- Adds jobs one by one: each may have an id of its own, which may also be the next number.
local function add_each()
  for at = 3, #ARGV, 3 do
    local id, record, due_ms = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local is_new
    if id ~= '' then
      is_new = redis.call('HSETNX', jobs, id, record) == 1
    else
      repeat
        local count = redis.pcall('INCR', counter)
        if is_error(count) then
          return take_back(count)
        end
        id = string.format('%.0f', count)
        is_new = redis.call('HSETNX', jobs, id, record) == 1
      until is_new
    end
    if is_new then
      queue(id, due_ms)
    end
    ids[#ids + 1] = is_new and id
  end
end

local own_ids = 0
for at = 3, #ARGV, 3 do
  if ARGV[at] ~= '' then
    own_ids = own_ids + 1
  end
end
local count = (#ARGV - 2) / 3
local refused
if own_ids == 0 and count > 1 then
  refused = add_numbered(count)
else
  refused = add_each()
end
if refused then
  return refused
end

if #added == 0 then
  return ids
end
refused = false
if redis.call('EXISTS', claims, results) > 0 then
  refused = redis.pcall('HDEL', claims, unpack(added))
  local dropped = is_error(refused) and 0 or redis.pcall('HDEL', results, unpack(added))
  if is_error(dropped) then
    refused = dropped
  elseif dropped > 0 then
    -- A result and its expiry come and go together.
    refused = redis.pcall('ZREM', expiries, unpack(added))
  end
end
if not is_error(refused) and #due > 0 then
  refused = redis.pcall('ZADD', delayed, unpack(due))
end
if not is_error(refused) and #ready > 0 then
  refused = redis.pcall('LPUSH', waiting, unpack(ready))
end
if is_error(refused) then
  return take_back(refused)
end

-- Only a new head is announced; whoever waits for an older head has its timer already. The text is
-- the producer's own, as Node's is.
if #due > 0 then
  local head = redis.call('ZRANGE', delayed, 0, 0)[1]
  for at = 2, #due, 2 do
    if due[at] == head then
      redis.call('PUBLISH', earlier_delayed, due[at - 1])
    end
  end
end
if outbox_limit ~= '0' then
  for _, id in ipairs(added) do
    redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id)
  end
end
return ids
