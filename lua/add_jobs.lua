-- Adds jobs, one or many, due now or later.
--
-- KEYS[1] id       string, counter of automatic ids
-- KEYS[2] jobs     hash, id → record
-- KEYS[3] waiting  list of ids; producers push left
-- KEYS[4] delayed  sorted set, id → due time in ms
-- KEYS[5] claims   hash, id → token.place:deliveries
-- KEYS[6] results  hash, id → what a job of that id left behind
-- KEYS[7] expiries sorted set, id → when its result may go, in ms
-- KEYS[8] outbox   stream of changed ids, for the mirror
-- ARGV[1]  earlier_delayed  name of the earlierDelayed channel
-- ARGV[2]  outbox_limit     how many changes the outbox holds at most, "0" to note none
-- ARGV[3…] jobs             id ("" for an automatic one), record and due time in ms ("" for now) of each
--
-- Returns a list with each job's id, or false where the id exists: then nothing was written.
--
-- Bounded by its arguments, and by how many of the next numbers are taken. Two callers with one id: the
-- script is one step, so the first wins and the other gets false. An automatic id that a user has taken
-- already is passed over, or the job would not exist; the counter is written with %.0f, for Lua's own text
-- of 10^14 is "1e+14". Claims and results of an earlier job of the same id (removed by a Node peer, which
-- knows nothing of them) are dropped: no old worker may finish this one. Queueing comes last; if anything
-- is refused (a key of the wrong type), the records are taken back.

local counter, jobs, waiting, delayed, claims, results, expiries, outbox = unpack(KEYS)
local call, pcall, ARGV = redis.call, redis.pcall, ARGV
local FIRST, STEP = 3, 3
local count = (#ARGV - FIRST + 1) / STEP
local ids, refused = {}, nil

local function is_error(reply)
  return type(reply) == 'table' and reply.err
end

local has_own_id = false
for at = FIRST, #ARGV, STEP do
  has_own_id = has_own_id or ARGV[at] ~= ''
end

if has_own_id or count <= 1 then
  -- One by one: each may have an id of its own, which may also be the next number.
  for at = FIRST, #ARGV, STEP do
    local id, record = ARGV[at], ARGV[at + 1]
    local is_new = id ~= '' and call('HSETNX', jobs, id, record) == 1
    while id == '' do
      local number = pcall('INCR', counter)
      if is_error(number) then
        refused = number
        break
      end
      local next_id = string.format('%.0f', number)
      if call('HSETNX', jobs, next_id, record) == 1 then
        id, is_new = next_id, true
      end
    end
    if refused then
      break
    end
    ids[#ids + 1] = is_new and id
  end
else
  -- Many that all want automatic ids: with few commands, not with two for each.
  local last = pcall('INCRBY', counter, count)
  if is_error(last) then
    return last
  end
  local numbers, records = {}, {}
  for number = last - count + 1, last do
    numbers[#numbers + 1] = string.format('%.0f', number)
  end
  for n, record in ipairs(call('HMGET', jobs, unpack(numbers))) do
    if not record then
      ids[#ids + 1] = numbers[n]
    end
  end
  while #ids < count do
    local id = string.format('%.0f', call('INCR', counter))
    if call('HEXISTS', jobs, id) == 0 then
      ids[#ids + 1] = id
    end
  end
  for n, id in ipairs(ids) do
    records[2 * n - 1] = id
    records[2 * n] = ARGV[FIRST + (n - 1) * STEP + 1]
  end
  call('HSET', jobs, unpack(records))
end

local added, ready, due = {}, {}, {}
for n, id in ipairs(ids) do
  if id then
    added[#added + 1] = id
    local due_ms = ARGV[FIRST + (n - 1) * STEP + 2]
    if due_ms == '' then
      ready[#ready + 1] = id
    else
      due[#due + 1] = due_ms
      due[#due + 1] = id
    end
  end
end
if not added[1] then
  return refused or ids
end

if not refused and call('EXISTS', claims, results) > 0 then
  refused = pcall('HDEL', claims, unpack(added))
  local dropped = is_error(refused) and 0 or pcall('HDEL', results, unpack(added))
  if is_error(dropped) then
    refused = dropped
  elseif dropped > 0 then
    -- A result and its expiry come and go together.
    refused = pcall('ZREM', expiries, unpack(added))
  end
end
if not is_error(refused) and due[1] then
  refused = pcall('ZADD', delayed, unpack(due))
end
if not is_error(refused) and ready[1] then
  refused = pcall('LPUSH', waiting, unpack(ready))
end
if is_error(refused) then
  call('HDEL', jobs, unpack(added))
  for at = 2, #due, 2 do
    pcall('ZREM', delayed, due[at])
  end
  return refused
end

-- Only a new head is announced; a process that waits for an older head has its timer already. The text is
-- the producer's own, as Node's is.
if due[1] then
  local head = call('ZRANGE', delayed, 0, 0)[1]
  for at = 2, #due, 2 do
    if due[at] == head then
      call('PUBLISH', ARGV[1], due[at - 1])
    end
  end
end
local outbox_limit = ARGV[2]
if outbox_limit ~= '0' then
  for _, id in ipairs(added) do
    pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id)
  end
end
return ids
