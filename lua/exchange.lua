-- One turn of a worker's pump: outcomes in, as many new jobs out as there are free places.
--
-- KEYS[1]  waiting    list of ids; workers pop right
-- KEYS[2]  active     list of ids; the newest claim is at the left
-- KEYS[3]  stalling   set of ids that have to give a sign of life
-- KEYS[4]  jobs       hash, id → record
-- KEYS[5]  succeeded  set of ids
-- KEYS[6]  failed     set of ids
-- KEYS[7]  delayed    sorted set, id → due time in ms
-- KEYS[8]  claims     hash, id → token:deliveries
-- KEYS[9]  results    hash, id → result or error text
-- KEYS[10] expiries   sorted set, id → when its result may go, in ms
-- KEYS[11] outbox     stream of changed ids, for the mirror
-- ARGV[1] token of this call: every job it hands out is claimed with it
-- ARGV[2] how many jobs to hand out at most
-- ARGV[3] id that a blocking move has put into active already, or ""
-- ARGV[4] name of the events channel, or "" to publish nothing
-- ARGV[5] name of the earlierDelayed channel
-- ARGV[6] how long to keep the result of a job whose record is dropped, in ms
-- ARGV[7] "1": drop the record of a job that succeeded
-- ARGV[8] "1": drop the record of a job that failed
-- ARGV[9] how many changes the outbox holds at most, "0" to note none
-- ARGV[10…] seven for each outcome: id, claim, verdict (succeeded, retrying, failed), record ("" leaves
--          it as it is), event message, delay in ms (retrying only), result or error text to keep ("" for none)
--
-- Returns {facts, taken, jobs}. facts: for each outcome 1 if it was recorded, 0 if the job had
-- another owner or no record any more (nothing was written), 2 if this very outcome had been
-- recorded before: the reply to that call was lost. taken: how many ids left waiting. jobs: id,
-- record, deliveries for each job handed out.
--
-- Bounded by its arguments. An outcome counts only while its claim stands and the id is in active.
-- The losing orders: the job stalled and was queued again (claim taken away, or id not in active);
-- another worker has it (other claim); it was removed (no record). An id without a record is
-- dropped where it is met, never handed out (flaw A3).
-- What may be refused (a key of the wrong type) is asked for before the job is given away, or taken;
-- after a refusal every id is where it was, and the caller may send the same call again.

local waiting, active, stalling, jobs, succeeded, failed, delayed, claims, results, expiries, outbox = unpack(KEYS)
local token, free, adopted = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local FIRST, STEP = 10, 7
local outbox_limit = ARGV[9]
local call, pcall = redis.call, redis.pcall
local ARGV = ARGV
local facts = {}

-- Records one kind of outcome for all ids at once; returns Redis's error if it refused.
local function write(command, key, arguments)
  if #arguments > 0 then
    local reply = pcall(command, key, unpack(arguments))
    if type(reply) == 'table' and reply.err then
      return reply
    end
  end
end

-- Notes that a job has changed; a refusal costs nobody a job, the mirror looks for itself as well.
local function note(id, ...)
  if outbox_limit ~= '0' then
    pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id, ...)
  end
end

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function settle()
  local events, earlier_delayed, result_ttl_ms = ARGV[4], ARGV[5], ARGV[6]
  local drops = { succeeded = ARGV[7] == '1', failed = ARGV[8] == '1' }
  local ids = {}
  for at = FIRST, #ARGV, STEP do
    ids[#ids + 1] = ARGV[at]
  end
  local holders = call('HMGET', claims, unpack(ids))

  local owned, ended, kept, expiring = {}, { succeeded = {}, failed = {} }, {}, {}
  local due, again, dropped, messages, gone = {}, {}, {}, {}, {}
  local delayed_ids, kept_ids = {}, {}
  local now

  for n, id in ipairs(ids) do
    local at = FIRST + (n - 1) * STEP
    local claim, verdict, record, message, delay_ms, keep = unpack(ARGV, at + 1, at + 6)
    local fact = 0
    if holders[n] == claim and call('LREM', active, -1, id) == 1 then
      owned[#owned + 1] = id
      local is_dropped = drops[verdict] and record ~= ''
      if is_dropped or record == '' then
        fact = call('HEXISTS', jobs, id)
      else
        local is_new = pcall('HSET', jobs, id, record)
        if is_new == 0 then
          fact = 1
        elseif is_new == 1 then
          call('HDEL', jobs, id) -- there was none: the job was removed meanwhile (flaw A6)
        else
          call('LPUSH', active, unpack(owned))
          return is_new
        end
      end
      if fact == 1 then
        if verdict ~= 'retrying' then
          if not is_dropped then
            local set = ended[verdict]
            set[#set + 1] = id
          else
            dropped[#dropped + 1] = id
            gone[id] = { verdict, record, keep }
            if keep ~= '' then
              now = now or now_ms()
              expiring[#expiring + 1] = string.format('%.0f', now + result_ttl_ms)
              expiring[#expiring + 1] = id
            end
          end
        elseif delay_ms ~= '0' then
          now = now or now_ms()
          due[#due + 1] = string.format('%.0f', now + delay_ms)
          due[#due + 1] = id
          delayed_ids[#delayed_ids + 1] = id
        else
          again[#again + 1] = id
        end
        if keep ~= '' then
          kept[#kept + 1] = id
          kept[#kept + 1] = keep
          kept_ids[#kept_ids + 1] = id
        end
        messages[#messages + 1] = message
      end
    elseif not holders[n] then
      local is_recorded = record ~= '' and call('HGET', jobs, id) == record
      if is_recorded or (keep ~= '' and call('HGET', results, id) == keep) then
        fact = 2
      end
    end
    facts[n] = fact
  end
  if #owned == 0 then
    return
  end

  local refused = write('SADD', succeeded, ended.succeeded)
    or write('SREM', failed, ended.succeeded)
    or write('SADD', failed, ended.failed)
    or write('SREM', succeeded, ended.failed)
    or write('ZADD', delayed, due)
    or write('HSET', results, kept)
    or write('ZADD', expiries, expiring)
    or write('SREM', stalling, owned)
    or write('LPUSH', waiting, again)
  if refused then
    write('SREM', succeeded, ended.succeeded)
    write('SREM', failed, ended.failed)
    write('ZREM', delayed, delayed_ids)
    write('HDEL', results, kept_ids)
    write('ZREM', expiries, kept_ids)
    call('LPUSH', active, unpack(owned))
    return refused
  end
  call('HDEL', claims, unpack(owned))
  if #dropped > 0 then
    call('HDEL', jobs, unpack(dropped))
  end
  for n, id in ipairs(ids) do
    if gone[id] then
      local state, last_record, kept_text = unpack(gone[id])
      note(id, 'state', state, 'record', last_record, 'keep', kept_text)
    elseif facts[n] == 1 then
      note(id)
    end
  end
  if #expiring > 0 then
    -- What has outlived its time goes first; no more than comes in, so a call stays bounded.
    local old = call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, #expiring / 2)
    if #old > 0 then
      call('HDEL', results, unpack(old))
      call('ZREM', expiries, unpack(old))
    end
  end
  if #due > 0 then
    local head = call('ZRANGE', delayed, 0, 0)[1]
    for n = 2, #due, 2 do
      if due[n] == head then
        call('PUBLISH', earlier_delayed, due[n - 1])
      end
    end
  end
  if events ~= '' then
    for _, message in ipairs(messages) do
      call('PUBLISH', events, message)
    end
  end
end

-- Moves what was found at the right end of waiting to the left end of active, the oldest first.
local function move(next_ids)
  if #next_ids == 1 then
    call('LMOVE', waiting, active, 'RIGHT', 'LEFT')
  elseif #next_ids > 1 then
    call('LPUSH', active, unpack(next_ids))
    call('LTRIM', waiting, 0, -#next_ids - 1)
  end
end

if #ARGV >= FIRST then
  local refused = settle()
  if refused then
    return refused
  end
end

local next_ids = {}
if free > 0 then
  local last = call('LRANGE', waiting, -free, -1)
  for n = #last, 1, -1 do
    next_ids[#next_ids + 1] = last[n]
  end
end
local candidates = { unpack(next_ids) }
if adopted ~= '' and call('LPOS', active, adopted) then
  table.insert(candidates, 1, adopted)
end
if #candidates == 0 then
  return { facts, 0, {} }
end

local records = call('HMGET', jobs, unpack(candidates))
local before = call('HMGET', claims, unpack(candidates))
call('SREM', stalling, unpack(candidates))
move(next_ids)
local claimed, fields = {}, {}
for n, id in ipairs(candidates) do
  if records[n] then
    local deliveries = (before[n] and tonumber(string.match(before[n], ':(%d+)$')) or 0) + 1
    fields[#fields + 1] = id
    fields[#fields + 1] = token .. ':' .. deliveries
    claimed[#claimed + 1] = id
    claimed[#claimed + 1] = records[n]
    claimed[#claimed + 1] = deliveries
    note(id)
  else
    call('LREM', active, 1, id)
    call('HDEL', claims, id)
  end
end
if #fields > 0 then
  call('HSET', claims, unpack(fields))
end
return { facts, #next_ids, claimed }
