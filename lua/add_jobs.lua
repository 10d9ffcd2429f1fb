-- Adds jobs, one or many, due now or later.
--
-- KEYS[1] id           string, counter of automatic ids
-- KEYS[2] jobs         hash, id → record
-- KEYS[3] waiting      list of ids; producers push left
-- KEYS[4] delayed      sorted set, id → due time in ms
-- KEYS[5] claims       hash, id → token.place:deliveries
-- KEYS[6] results      hash, id → what a job of that id left behind
-- KEYS[7] evenResults  hash, the same of a job whose record was dropped
-- KEYS[8] oddResults   the same, of other periods
-- KEYS[9] outbox       stream of changed ids, for the mirror
-- KEYS[10] attempts    hash, id → failed attempts of the job
-- ARGV[1]  earlier_delayed  name of the earlierDelayed channel; "" if all jobs get automatic ids and are due now
-- ARGV[2]  outbox_limit     how many changes the outbox holds at most, "0" to note none
-- ARGV[3…] jobs             id ("" for an automatic one), record and due time in ms ("" for now) of each; after
--                           an empty earlier_delayed the record alone
--
-- Returns the last id, a number, where all got automatic ones that follow one another. Else a list with each job's
-- id (text or number), false where the id exists, an error where an automatic id was asked for and the counter
-- cannot give one: then nothing was written of that job.
--
-- Bounded by its arguments. Two callers with one id: the script is one step, so the first wins and the other
-- gets false. An automatic id that a user has taken already is passed over, or the job would not exist: first one
-- by one, and after LONGEST_WALK of them by leaps, so that many imported ids do not hold up Redis. Redis writes a
-- number with all its digits, Lua (10^14 is "1e+14") does not; beyond LAST_NUMBER a number's text would be that of
-- its neighbour. Claims, results and attempts of an earlier job of the same id (removed by a Node peer, which
-- knows nothing of them) are dropped: no old worker may finish this one. Queueing comes last; if anything
-- is refused (a key of the wrong type), the records are taken back.

local counter, jobs, waiting, delayed, claims, results, even_results, odd_results, outbox, attempts = unpack(KEYS)
local call, pcall, ARGV = redis.call, redis.pcall, ARGV
local FIRST, STEP = 3, ARGV[1] == '' and 1 or 3
local RECORD = STEP == 1 and 0 or 1
local count = (#ARGV - FIRST + 1) / STEP
-- Numbers, and their negatives, that Lua and JavaScript hold exactly.
local LAST_NUMBER = 9007199254740991
local LONGEST_WALK = 1000
-- Numbers looked up at once: a record that is met comes along.
local AT_ONCE = 25
local ids, refused = {}, nil

local has_own_id = false
for at = FIRST, STEP == 1 and 0 or #ARGV, STEP do
  has_own_id = has_own_id or ARGV[at] ~= ''
end

-- One that wants an automatic id, as most calls: the functions below take longer to define than it takes to add it.
if count == 1 and not has_own_id then
  local number = pcall('INCR', counter)
  if type(number) == 'number' and (number > LAST_NUMBER or number < -LAST_NUMBER) then
    call('DECR', counter)
  elseif type(number) == 'number' and call('HSETNX', jobs, number, ARGV[FIRST + RECORD]) == 1 then
    ids[1] = number
  end
end

-- Many that all want automatic ids: with few commands, not with two for each. A taken number ends this.
local last = not has_own_id and count > 1 and pcall('INCRBY', counter, count)
if type(last) == 'number' then
  local used, is_exact = 0, last <= LAST_NUMBER and last - count >= -LAST_NUMBER
  while is_exact and used == #ids and used < count do
    local numbers = {}
    for n = used + 1, math.min(used + AT_ONCE, count) do
      numbers[n - used] = last - count + n
    end
    for n, record in ipairs(call('HMGET', jobs, unpack(numbers))) do
      if not record then
        ids[#ids + 1] = numbers[n]
      end
    end
    used = used + #numbers
  end
  if used < count then
    call('DECRBY', counter, count - used)
  end
  local records = {}
  for n, id in ipairs(ids) do
    records[2 * n - 1] = id
    records[2 * n] = ARGV[FIRST + (n - 1) * STEP + RECORD]
  end
  if records[1] then
    call('HSET', jobs, unpack(records))
  end
end

local is_complete = #ids == count
if not is_complete then
  local function is_beyond(number)
    return number > LAST_NUMBER or number < -LAST_NUMBER
  end

  local function is_error(reply)
    return type(reply) == 'table' and reply.err
  end

  local function counter_error(reason)
    return { err = 'ERR the counter of automatic ids, ' .. counter .. ', cannot count (' .. reason .. ')' }
  end

  -- Returns a free number behind a taken one, or nil: by doubled steps to a free one, then by halved ones back to the
  -- first free number after a taken one.
  local function leap(taken)
    local free, step = math.min(taken + 1, LAST_NUMBER), 1
    while call('HEXISTS', jobs, free) == 1 do
      if free == LAST_NUMBER then
        return nil
      end
      taken, step = free, step * 2
      free = math.min(free + step, LAST_NUMBER)
    end
    while free - taken > 1 do
      local middle = taken + math.floor((free - taken) / 2)
      if call('HEXISTS', jobs, middle) == 1 then
        taken = middle
      else
        free = middle
      end
    end
    return free
  end

  local walked = 0

  -- Writes the record under the next free number; returns that, or why there is none, or Redis's refusal.
  local function add_automatic(record)
    while true do
      local number = pcall('INCR', counter)
      if is_error(number) then
        local is_odd = string.find(number.err, 'WRONGTYPE') or string.find(number.err, 'not an integer')
        if is_odd or string.find(number.err, 'overflow') then
          return nil, counter_error((string.gsub(number.err, '^ERR ', '')))
        end
        return nil, nil, number
      end
      if is_beyond(number) then
        call('DECR', counter)
        return nil, counter_error('it is at its end, ' .. string.format('%.0f', LAST_NUMBER))
      end
      if call('HSETNX', jobs, number, record) == 1 then
        return number
      end
      walked = walked + 1
      if walked > LONGEST_WALK then
        local free = leap(number)
        if not free then
          call('DECR', counter)
          return nil, counter_error('the numbers after it are taken')
        end
        call('INCRBY', counter, free - number - 1)
      end
    end
  end

  -- One by one: each may have an id of its own, which may also be the next number.
  local no_number
  for n = #ids + 1, count do
    local at = FIRST + (n - 1) * STEP
    local id, record = STEP > 1 and ARGV[at] or '', ARGV[at + RECORD]
    if id ~= '' then
      ids[n] = call('HSETNX', jobs, id, record) == 1 and id
    elseif no_number then
      ids[n] = no_number
    else
      id, no_number, refused = add_automatic(record)
      if refused then
        break
      end
      ids[n] = id or no_number
    end
  end
end

local added, ready, due = ids, ids, nil
if STEP > 1 or not is_complete then
  added, ready = {}, {}
  for n, id in ipairs(ids) do
    if type(id) ~= 'boolean' and type(id) ~= 'table' then
      added[#added + 1] = id
      local due_ms = STEP > 1 and ARGV[FIRST + (n - 1) * STEP + 2] or ''
      if due_ms == '' then
        ready[#ready + 1] = id
      else
        due = due or {}
        due[#due + 1] = due_ms
        due[#due + 1] = id
      end
    end
  end
  if not added[1] then
    return refused or ids
  end
end

-- From here on "refused" holds Redis's error, a table, or else the last command's reply.
if not refused then
  -- What earlier jobs of these ids have left: mostly the keys of the second group are not there.
  for _, keys in ipairs({ { claims, results }, { even_results, odd_results, attempts } }) do
    local count = call('EXISTS', unpack(keys))
    for n = 1, count > 0 and #keys or 0 do
      refused = type(refused) == 'table' and refused or pcall('HDEL', keys[n], unpack(added))
    end
  end
end
if due and type(refused) ~= 'table' then
  refused = pcall('ZADD', delayed, unpack(due))
end
if ready[1] and type(refused) ~= 'table' then
  refused = pcall('LPUSH', waiting, unpack(ready))
end
if type(refused) == 'table' then
  call('HDEL', jobs, unpack(added))
  for at = 2, due and #due or 0, 2 do
    pcall('ZREM', delayed, due[at])
  end
  return refused
end

-- Only a new head is announced; a process that waits for an older head has its timer already. The text is
-- the producer's own, as Node's is.
if due then
  local head = call('ZRANGE', delayed, 0, 0)[1]
  for at = 2, #due, 2 do
    local id = due[at]
    if (type(id) == 'number' and string.format('%.0f', id) or id) == head then
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
if is_complete and not has_own_id and ids[count] - ids[1] == count - 1 then
  return ids[count]
end
return ids
