-- Records the outcomes of jobs that have ended, then claims as many waiting jobs as the worker has places for.
--
-- KEYS[1]  waiting    list of ids; workers pop right
-- KEYS[2]  active     list of ids; the newest claim is at the left
-- KEYS[3]  stalling   set of ids that have to give a sign of life
-- KEYS[4]  jobs       hash, id → record
-- KEYS[5]  succeeded  set of ids
-- KEYS[6]  failed     set of ids
-- KEYS[7]  delayed    sorted set, id → due time in ms
-- KEYS[8]  claims     hash, id → token.place:deliveries
-- KEYS[9]  results    hash, id → result or error text
-- KEYS[10] expiries   sorted set, id → when its result may go, in ms
-- KEYS[11] outbox     stream of changed ids, for the mirror
-- ARGV[1]   events           name of the events channel, or "" to publish no job events
-- ARGV[2]   earlier_delayed  name of the earlierDelayed channel
-- ARGV[3]   keep_ms          how long to keep the result of a job whose record is dropped
-- ARGV[4]   drop_succeeded   "1": drop the record of a job that succeeded
-- ARGV[5]   drop_failed      "1": drop the record of a job that failed
-- ARGV[6]   outbox_limit     how many changes the outbox holds at most, "0" to note none
-- ARGV[7]   token            of this call: each job it hands out is claimed with token.place:deliveries. No
--                            two jobs share a claim: who cancels one means that one
-- ARGV[8]   free             how many jobs to hand out at most
-- ARGV[9]   fetched          id that a blocking fetch has moved into active already, or ""
-- ARGV[10]  is_started       "1" if the handler of that job was started already: nobody had claimed it then.
--                            Its place is 0, whether it is claimed or not
-- ARGV[11…] outcomes         of each id, claim, status (succeeded, retrying, failed), record ("" leaves it
--                            as it is), event message, delay in ms (retrying only), result or error text
--                            to keep ("" for none)
--
-- Returns {facts, taken, jobs, is_granted}. facts: for each outcome 1 if it was recorded, 0 if the job had
-- another owner or no record any more (nothing was written), 2 if this very outcome had been
-- recorded before: the reply to that call was lost. taken: how many ids left waiting. jobs: id,
-- record, deliveries for each job handed out. is_granted: 1 if the job that was started is the first of them.
--
-- Bounded by its arguments. An outcome counts only while its claim is there and the id is in active.
-- The losing orders: the job stalled and was queued again (claim taken away, or id not in active);
-- another worker has it (other claim); it was removed (no record). An id without a record is
-- dropped where it is met, never handed out. A job that was started and has been claimed by another worker
-- meanwhile, because it stalled before this call came, stays with that worker. One that was not started is
-- claimed even if it has a claim: bee-queue's stall check leaves the claim of a dead worker where it was.
-- What may be refused (a key of the wrong type) is asked for before the job is given away, or taken;
-- after a refusal every id is where it was, and the caller may send the same call again.

local waiting, active, stalling, jobs, succeeded, failed, delayed, claims, results, expiries, outbox = unpack(KEYS)
local call, pcall, ARGV = redis.call, redis.pcall, ARGV
local FIRST, STEP = 11, 7
local free, fetched, is_started = tonumber(ARGV[8]), ARGV[9], ARGV[10] == '1'
local drops = { succeeded = ARGV[4] == '1', failed = ARGV[5] == '1' }
local is_mirrored = ARGV[6] ~= '0'
local facts = {}

-- Records one kind of outcome for all ids at once; returns Redis's error if it refused.
local function write(command, key, arguments)
  local reply = arguments and pcall(command, key, unpack(arguments))
  if type(reply) == 'table' and reply.err then
    return reply
  end
end

-- Notes that a job has changed; a refusal costs nobody a job, the mirror looks for itself as well.
local function note(id, ...)
  pcall('XADD', outbox, 'MAXLEN', '~', ARGV[6], '*', 'id', id, ...)
end

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The outcomes. Lists are made only where they are needed: this script's time is an idle worker's latency.

local ids, owned = {}, {}
for at = FIRST, #ARGV, STEP do
  ids[#ids + 1] = ARGV[at]
end
local holders = ids[1] and call('HMGET', claims, unpack(ids))
local succeeded_ids, failed_ids, dropped_ids, delayed_entries, waiting_ids, kept_entries, expiry_entries, now

for n, id in ipairs(ids) do
  local at = FIRST + (n - 1) * STEP
  local status, record, keep = ARGV[at + 2], ARGV[at + 3], ARGV[at + 6]
  local fact = 0
  if holders[n] == ARGV[at + 1] and call('LREM', active, -1, id) == 1 then
    owned[#owned + 1] = id
    local is_dropped = drops[status] and record ~= ''
    local refused
    if is_dropped or record == '' then
      fact = pcall('HEXISTS', jobs, id)
      refused = type(fact) == 'table' and fact
    else
      local is_new = pcall('HSET', jobs, id, record)
      if is_new == 0 then
        fact = 1
      elseif is_new == 1 then
        call('HDEL', jobs, id) -- there was none: the job was removed meanwhile
      else
        refused = is_new
      end
    end
    if refused then
      call('LPUSH', active, unpack(owned))
      return refused
    end
    if fact == 1 then
      local delay_ms = ARGV[at + 5]
      if status == 'retrying' and delay_ms ~= '0' then -- it is due by Redis's clock
        now, delayed_entries = now or now_ms(), delayed_entries or {}
        delayed_entries[#delayed_entries + 1] = string.format('%.0f', now + delay_ms)
        delayed_entries[#delayed_entries + 1] = id
      elseif status == 'retrying' then
        waiting_ids = waiting_ids or {}
        waiting_ids[#waiting_ids + 1] = id
      elseif is_dropped then
        dropped_ids = dropped_ids or {}
        dropped_ids[#dropped_ids + 1] = id
        if keep ~= '' then
          now, expiry_entries = now or now_ms(), expiry_entries or {}
          expiry_entries[#expiry_entries + 1] = string.format('%.0f', now + ARGV[3])
          expiry_entries[#expiry_entries + 1] = id
        end
      elseif status == 'succeeded' then
        succeeded_ids = succeeded_ids or {}
        succeeded_ids[#succeeded_ids + 1] = id
      else
        failed_ids = failed_ids or {}
        failed_ids[#failed_ids + 1] = id
      end
      if keep ~= '' then
        kept_entries = kept_entries or {}
        kept_entries[#kept_entries + 1] = id
        kept_entries[#kept_entries + 1] = keep
      end
    end
  elseif not holders[n] then
    local is_recorded = record ~= '' and call('HGET', jobs, id) == record
    if is_recorded or (keep ~= '' and call('HGET', results, id) == keep) then
      fact = 2
    end
  end
  facts[n] = fact
end

if owned[1] then
  local refused = write('SADD', succeeded, succeeded_ids)
    or write('SREM', failed, succeeded_ids)
    or write('SADD', failed, failed_ids)
    or write('SREM', succeeded, failed_ids)
    or write('ZADD', delayed, delayed_entries)
    or write('HSET', results, kept_entries)
    or write('ZADD', expiries, expiry_entries)
    or write('SREM', stalling, owned)
    or write('LPUSH', waiting, waiting_ids)
  if refused then
    write('SREM', succeeded, succeeded_ids)
    write('SREM', failed, failed_ids)
    for n = 2, #(delayed_entries or {}), 2 do
      pcall('ZREM', delayed, delayed_entries[n])
    end
    for n = 1, #(kept_entries or {}), 2 do
      pcall('HDEL', results, kept_entries[n])
      pcall('ZREM', expiries, kept_entries[n])
    end
    call('LPUSH', active, unpack(owned))
    return refused
  end
  call('HDEL', claims, unpack(owned))
  if dropped_ids then
    call('HDEL', jobs, unpack(dropped_ids))
  end
  if expiry_entries then
    -- What has outlived its time goes first; no more than comes in, so a call stays bounded.
    local old = call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, #expiry_entries / 2)
    if old[1] then
      call('HDEL', results, unpack(old))
      call('ZREM', expiries, unpack(old))
    end
  end
  if delayed_entries then
    -- A new head is announced, so that the processes that raise delayed jobs look in time.
    local head = call('ZRANGE', delayed, 0, 0)[1]
    for n = 2, #delayed_entries, 2 do
      if delayed_entries[n] == head then
        call('PUBLISH', ARGV[2], delayed_entries[n - 1])
      end
    end
  end
  for n = 1, is_mirrored and #facts or 0 do
    local at = FIRST + (n - 1) * STEP
    local status, record = ARGV[at + 2], ARGV[at + 3]
    if facts[n] == 1 and drops[status] and record ~= '' then
      note(ids[n], 'state', status, 'record', record, 'keep', ARGV[at + 6])
    elseif facts[n] == 1 then
      note(ids[n])
    end
  end
  local events = ARGV[1]
  for n, fact in ipairs(facts) do
    if fact == 1 and events ~= '' then
      call('PUBLISH', events, ARGV[FIRST + (n - 1) * STEP + 4])
    end
  end
end

-- The jobs.

local candidates = free > 0 and call('LRANGE', waiting, -free, -1) or {}
local taken = #candidates
for n = 1, taken / 2 do -- the oldest first
  candidates[n], candidates[taken + 1 - n] = candidates[taken + 1 - n], candidates[n]
end
local is_claimed = fetched ~= '' and call('LPOS', active, fetched)
if is_claimed and is_started then
  is_claimed = call('HEXISTS', claims, fetched) == 0
end
if is_claimed then
  table.insert(candidates, 1, fetched)
end
if not candidates[1] then
  return { facts, 0, {}, 0 }
end

local records = call('HMGET', jobs, unpack(candidates))
local before = call('HMGET', claims, unpack(candidates))
-- A claim is a job's first sign of life: until the next stall check marks the job, it needs no beat.
call('SREM', stalling, unpack(candidates))
if taken == 1 then
  call('LMOVE', waiting, active, 'RIGHT', 'LEFT')
elseif taken > 1 then
  call('LPUSH', active, unpack(candidates, is_claimed and 2 or 1))
  call('LTRIM', waiting, 0, -taken - 1)
end
local is_granted = is_started and is_claimed and records[1]
local first_place = is_started and not is_granted and 1 or 0
local token, claimed, fields = ARGV[7], {}, {}
for n, id in ipairs(candidates) do
  if records[n] then
    local deliveries = 1
    if before[n] then
      deliveries = (tonumber(string.match(before[n], ':(%d+)$')) or 0) + 1
    end
    fields[#fields + 1] = id
    fields[#fields + 1] = token .. '.' .. #claimed / 3 + first_place .. ':' .. deliveries
    claimed[#claimed + 1] = id
    claimed[#claimed + 1] = records[n]
    claimed[#claimed + 1] = deliveries
    if is_mirrored then
      note(id)
    end
  else
    call('LREM', active, 1, id)
    call('HDEL', claims, id)
  end
end
if fields[1] then
  call('HSET', claims, unpack(fields))
end
return { facts, taken, claimed, is_granted and 1 or 0 }
