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
-- ARGV[1] token of this call: every job it hands out is claimed with it
-- ARGV[2] how many jobs to hand out at most
-- ARGV[3] id that a blocking move has put into active already, or ""
-- ARGV[4] name of the events channel, or "" to publish nothing
-- ARGV[5] name of the earlierDelayed channel
-- ARGV[6] how long to keep the result of a job whose record is dropped, in ms
-- ARGV[7] "1": drop the record of a job that succeeded
-- ARGV[8] "1": drop the record of a job that failed
-- ARGV[9…] seven for each outcome: id, claim, verdict (succeeded, retrying, failed), record ("" leaves
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
-- The writes that may be refused (a key of the wrong type) come before those that give the job
-- away; after a refusal the ids are put back into active and the caller may send the outcome again.

local waiting, active, stalling, jobs, succeeded, failed, delayed, claims, results, expiries = unpack(KEYS)
local token, free, adopted, events, earlier_delayed, result_ttl_ms = unpack(ARGV, 1, 6)
local drops = { succeeded = ARGV[7] == '1', failed = ARGV[8] == '1' }
local FIRST, STEP = 9, 7
local facts = {}

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function settle()
  local ids = {}
  for at = FIRST, #ARGV, STEP do
    ids[#ids + 1] = ARGV[at]
  end
  local holders = redis.call('HMGET', claims, unpack(ids))

  local owned, put_back = {}, {}
  local records, dropped, kept, unkept, expiring = {}, {}, {}, {}, {}
  local sets = { succeeded = {}, failed = {} }
  local due, again, messages = {}, {}, {}
  local now

  for n, id in ipairs(ids) do
    local at = FIRST + (n - 1) * STEP
    local claim, verdict, record, message, delay_ms, keep = unpack(ARGV, at + 1, at + 6)
    facts[n] = 0
    if holders[n] == claim and redis.call('LREM', active, -1, id) == 1 then
      owned[#owned + 1] = id
      if redis.call('HEXISTS', jobs, id) == 1 then
        facts[n] = 1
        put_back[#put_back + 1] = id
        if verdict == 'retrying' then
          if tonumber(delay_ms) > 0 then
            now = now or now_ms()
            due[#due + 1] = { string.format('%.0f', now + delay_ms), id }
          else
            again[#again + 1] = id
          end
        else
          local set = sets[verdict]
          if drops[verdict] and record ~= '' then
            dropped[#dropped + 1] = id
            if keep ~= '' then
              now = now or now_ms()
              expiring[#expiring + 1] = string.format('%.0f', now + result_ttl_ms)
              expiring[#expiring + 1] = id
            end
          else
            set[#set + 1] = id
          end
        end
        if record ~= '' and not (drops[verdict]) then
          records[#records + 1] = id
          records[#records + 1] = record
        end
        if keep ~= '' then
          kept[#kept + 1] = id
          kept[#kept + 1] = keep
        else
          unkept[#unkept + 1] = id
        end
        if message ~= '' then
          messages[#messages + 1] = message
        end
      end
    elseif not holders[n] and record ~= '' and redis.call('HGET', jobs, id) == record then
      facts[n] = 2
    end
  end
  if #owned == 0 then
    return
  end

  local writes = {}
  local function write(command, key, arguments)
    if #arguments > 0 then
      writes[#writes + 1] = { command, key, unpack(arguments) }
    end
  end
  write('HSET', jobs, records)
  write('SADD', succeeded, sets.succeeded)
  write('SREM', failed, sets.succeeded)
  write('SADD', failed, sets.failed)
  write('SREM', succeeded, sets.failed)
  for _, entry in ipairs(due) do
    write('ZADD', delayed, entry)
  end
  write('HSET', results, kept)
  write('HDEL', results, unkept)
  write('ZADD', expiries, expiring)
  write('SREM', stalling, owned)
  write('LPUSH', waiting, again)
  write('HDEL', jobs, dropped)
  write('HDEL', claims, owned)
  for _, arguments in ipairs(writes) do
    local reply = redis.pcall(unpack(arguments))
    if type(reply) == 'table' and reply.err then
      redis.call('LPUSH', active, unpack(put_back))
      return reply
    end
  end

  if #expiring > 0 then
    -- What has outlived its time goes first; with nobody finishing jobs, both keys go as a whole.
    local old = redis.call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, #expiring)
    if #old > 0 then
      redis.call('HDEL', results, unpack(old))
      redis.call('ZREM', expiries, unpack(old))
    end
  end
  if #due > 0 then
    local head = redis.call('ZRANGE', delayed, 0, 0)[1]
    for _, entry in ipairs(due) do
      if entry[2] == head then
        redis.call('PUBLISH', earlier_delayed, entry[1])
      end
    end
  end
  if events ~= '' then
    for _, message in ipairs(messages) do
      redis.call('PUBLISH', events, message)
    end
  end
end

if #ARGV >= FIRST then
  local refused = settle()
  if refused then
    return refused
  end
end

local candidates = {}
if adopted ~= '' and redis.call('LPOS', active, adopted) then
  candidates[1] = adopted
end
local taken = 0
if tonumber(free) > 0 then
  local next_ids = redis.call('LRANGE', waiting, -free, -1)
  taken = #next_ids
  if taken > 0 then
    local moved = {}
    for n = taken, 1, -1 do
      moved[#moved + 1] = next_ids[n]
      candidates[#candidates + 1] = next_ids[n]
    end
    redis.call('LPUSH', active, unpack(moved))
    redis.call('LTRIM', waiting, 0, -free - 1)
  end
end
if #candidates == 0 then
  return { facts, taken, {} }
end

local found = redis.call('HMGET', jobs, unpack(candidates))
local before = redis.call('HMGET', claims, unpack(candidates))
local claimed, claim_fields, claimed_ids = {}, {}, {}
for n, id in ipairs(candidates) do
  if found[n] then
    local deliveries = (before[n] and tonumber(string.match(before[n], ':(%d+)$')) or 0) + 1
    claim_fields[#claim_fields + 1] = id
    claim_fields[#claim_fields + 1] = token .. ':' .. deliveries
    claimed_ids[#claimed_ids + 1] = id
    claimed[#claimed + 1] = id
    claimed[#claimed + 1] = found[n]
    claimed[#claimed + 1] = deliveries
  else
    redis.call('LREM', active, 1, id)
    redis.call('HDEL', claims, id)
  end
end
if #claimed_ids > 0 then
  redis.call('HSET', claims, unpack(claim_fields))
  redis.call('SREM', stalling, unpack(claimed_ids))
end
return { facts, taken, claimed }
