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
-- Bounded by its arguments. Two callers with one id: the script is one step, so the first wins and
-- the other gets false. An automatic id that a user has taken already is passed over (flaw C1);
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
    added[#added + 1] = id
    if due_ms == '' then
      ready[#ready + 1] = id
    else
      due[#due + 1] = due_ms
      due[#due + 1] = id
    end
  end
  ids[#ids + 1] = is_new and id
end

if #added == 0 then
  return ids
end
local refused = redis.pcall('HDEL', claims, unpack(added))
if not is_error(refused) then
  refused = redis.pcall('HDEL', results, unpack(added))
end
if not is_error(refused) then
  refused = redis.pcall('ZREM', expiries, unpack(added))
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
