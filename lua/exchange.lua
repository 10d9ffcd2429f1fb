-- Records the outcomes of jobs that have ended, then claims as many waiting jobs as the worker has places for.
--
-- KEYS[1]  waiting      list of ids; workers pop right
-- KEYS[2]  active       list of ids; the newest claim is at the left
-- KEYS[3]  stalling     set of ids that have to give a sign of life
-- KEYS[4]  jobs         hash, id → record
-- KEYS[5]  succeeded    set of ids
-- KEYS[6]  failed       set of ids
-- KEYS[7]  claims       hash, id → token.place:deliveries
-- KEYS[8]  results      hash, id → result or error text, as long as the job is there
-- KEYS[9]  ahead        sorted set, "<claim> <id>" of a job claimed ahead that has not begun → until when it is to
-- KEYS[10] delayed      sorted set, id → due time in ms
-- KEYS[11] evenResults  hash, id → due time in ms:result or error text, of dropped jobs; used in even
-- KEYS[12] oddResults   the same, in odd periods of keep_ms: either key goes by its TTL before its next turn
-- KEYS[13] outbox       stream of changed ids, for the mirror
-- KEYS[14] attempts     hash, id → failed attempts of the job, newest first, one a line
-- KEYS[15] succeededAt  sorted set, id → when the job succeeded, in ms, and its record's mark (drop_finished.lua)
-- KEYS[16] failedAt     sorted set, the same of jobs that have failed
-- ARGV[1]   events           name of the events channel, or "" to publish no job events
-- ARGV[2]   earlier_delayed  name of the earlierDelayed channel
-- ARGV[3]   keep_ms          how long to keep the result of a job whose record is dropped
-- ARGV[4]   drop_succeeded   "1": drop the record of a job that succeeded; "later": note in succeededAt when it did
-- ARGV[5]   drop_failed      "1": drop the record of a job that failed; "later": note in failedAt when it did
-- ARGV[6]   outbox_limit     how many changes the outbox holds at most, "0" to note none
-- ARGV[7]   max_bytes        of the ids and records handed out; the first goes however long it is
-- ARGV[8]   active_length    how long active was when it was last counted, or "" to count now
-- ARGV[9]   is_mixed         "1" if active had entries then that no claim belongs to: those of Node peers
-- ARGV[10]  token            of this call: each job it hands out is claimed with token.place:deliveries. No
--                            two jobs share a claim: who cancels one means that one
-- ARGV[11]  free             how many jobs to hand out at most
-- ARGV[12]  wanted_ahead     how many to hand out beyond these, of those that wait behind them: half of what waits
--                            then at most, only jobs that nobody was handed before, and none behind one that was
-- ARGV[13]  ahead_ms         how soon these have to begin, or others may take them back; "" to note none of them
-- ARGV[14]  fetched          id that a blocking fetch has moved into active already, or ""
-- ARGV[15]  is_started       "1" if the handler of that job was started already: nobody had claimed it then.
--                            Its place is 0, whether it is claimed or not
-- ARGV[16…] outcomes         of each id, claim, status (succeeded, retrying, failed), record ("" leaves it
--                            as it is), event message, delay in ms (0 unless retrying; of a failure a colon
--                            and the attempt to note may follow), result or error text to keep ("" for none)
--
-- Returns {facts, flags, jobs, is_granted, ahead, counted}. facts: for each outcome 1 if it was recorded, 0 if the job had
-- another owner or no record any more (nothing was written), 2 if nobody has the job, and what this outcome
-- would write is there: it was recorded before, if the reply to a call with it was lost, else another
-- worker has written the same. There may be fewer facts than outcomes: the others were not looked at, and
-- as many jobs fewer are handed out. flags: 1 if waiting had fewer ids than there are free places, or none where
-- jobs ahead were wanted, 2 more if jobs of any worker are claimed ahead. jobs: id, record, deliveries for each
-- job handed out. is_granted: 1 if the job that was started is the first of them. ahead: how many of them, at the
-- end, were claimed ahead. counted: active_length and is_mixed as they are now; it is there only if they were to
-- be counted.
--
-- A call that records nothing but successes, drops and notes nothing needs the keys up to ahead only; each key costs
-- as much as a quarter of a command.
-- Bounded by its arguments, by max_bytes, and by LONGEST_WALK: the ids of outcomes, and those that may run
-- already, are looked for in active, which is as long as many jobs run in the whole fleet. An outcome counts
-- only while its claim is there and the id is in active. The losing orders: the job stalled and was queued
-- again (claim taken away, or id not in active); another worker has it (other claim); it was removed (no
-- record). An id without a record is dropped where it is met, never handed out. A job that was started and has
-- been claimed by another worker meanwhile, because it stalled before this call came, stays with that worker.
-- One that was not started is claimed even if it has a claim: bee-queue's stall check leaves the claim of a
-- dead worker where it was. An id that was pushed twice runs once at a time: what is in waiting while the job
-- runs is dropped.
-- What may be refused (a key of the wrong type) is asked for before the job is given away, or taken;
-- after a refusal every id is where it was, and the caller may send the same call again.

local waiting, active, stalling, jobs, succeeded, failed, claims, results, ahead, delayed, even_results, odd_results, outbox, attempts, succeeded_at, failed_at = unpack(KEYS)
local call, pcall, ARGV = redis.call, redis.pcall, ARGV
local FIRST, STEP = 16, 7
local free, wanted_ahead, ahead_ms = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13]
local fetched, is_started = ARGV[14], ARGV[15] == '1'
local drops = (ARGV[4] == '1' or ARGV[5] == '1') and { succeeded = ARGV[4] == '1', failed = ARGV[5] == '1' }
local is_mirrored = ARGV[6] ~= '0'
local is_noting = ARGV[4] == 'later' or ARGV[5] == 'later'
local facts = {}

-- What few calls need is defined only where it is used: defining it takes as long as running much of the
-- rest.

-- Notes that a job has changed; a refusal loses no job, the mirror looks for itself as well.
local note = is_mirrored
  and function(id, ...)
    pcall('XADD', outbox, 'MAXLEN', '~', ARGV[6], '*', 'id', id, ...)
  end

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A key with results of dropped jobs outlives its last entry by so much: a writer whose turn begins drops it then
-- without delay, where Redis would take its time for a large one that expires.
local GRACE_MS = 1000

-- Entries of active that one call passes by at most, looking for its ids: some milliseconds' worth.
local LONGEST_WALK = 250000
-- A longer list is searched first where ids are likely: among so many of the oldest, and of the newest.
local NEAR = 1000
-- What a fetch has just moved is among so many of the newest; if it is there twice, its job runs. (A text: Lua takes
-- its time to write a number.)
local FETCHED_WITHIN = '10000'
local COLON, ZERO = 58, 48
-- A job's failed attempts that are kept, and for how long they outlive the last failure of the queue: what is left of
-- jobs that Node peers have removed goes in the end, with no process alive.
local MOST_ATTEMPTS, ATTEMPTS_MS = 20, 30 * 24 * 3600 * 1000
-- Records longer than this are marked by their length alone.
local LONGEST_MARKED = 4096
-- Records read by one command: at most so many beyond max_bytes are read in vain.
local PIECE = 16
-- Outcomes whose records together are longer than this are written one by one: to look first which jobs have a record
-- means to read the old ones.
local LONGEST_READ = 65536
local length, is_mixed, counted = tonumber(ARGV[8]), ARGV[9] == '1', nil
if not length then
  length = call('LLEN', active)
  -- What a fetch has just moved has no claim yet, either.
  is_mixed = length - call('HLEN', claims) > (fetched == '' and 0 or 1)
  counted = { length, is_mixed and 1 or 0 }
end
local walked = 0
-- Whether some jobs have to give a sign of life: mostly there are none.
local is_checked = call('EXISTS', stalling) == 1

-- Reads one field, which takes less time alone, or several.
local function fields_of(key, names)
  return names[2] and call('HMGET', key, unpack(names)) or { call('HGET', key, names[1]) }
end

-- The outcomes. Lists are made only where they are needed: this script's time is an idle worker's latency.

if ARGV[FIRST] then
  -- Records one kind of outcome for all ids at once; returns Redis's error if it refused.
  local function write(command, key, arguments)
    local reply = arguments and pcall(command, key, unpack(arguments))
    if type(reply) == 'table' and reply.err then
      return reply
    end
  end

  local ids, owned, owned_at, ended, owned_count = {}, {}, {}, 0, 0
  for at = FIRST, #ARGV, STEP do
    ended = ended + 1
    ids[ended] = ARGV[at]
  end
  local holders = fields_of(claims, ids)
  local may_have_failed = ended < 8 or call('EXISTS', failed) == 1

  -- Jobs mostly end in the order in which they began: the oldest of active are these, and go at once.
  local oldest = 0
  if ended >= 4 and call('LINDEX', active, '-1') == ids[1] then
    local tail = call('LRANGE', active, -ended, '-1')
    while tail[#tail - oldest] == ids[oldest + 1] and holders[oldest + 1] == ARGV[FIRST + oldest * STEP + 1] do
      oldest = oldest + 1
      if oldest == #tail then
        break
      end
    end
    if oldest > 0 then
      call('LTRIM', active, '0', -oldest - 1)
    end
  end

  local bytes, refused = 0, nil
  for n = 1, ended do
    if walked > LONGEST_WALK then
      free = math.max(0, free - (ended - n + 1)) -- the worker's places are not free yet
      break
    end
    local id, at, is_active = ids[n], FIRST + (n - 1) * STEP, n <= oldest
    facts[n] = 0
    if not is_active and holders[n] == ARGV[at + 1] then
      local side = '-1'
      if length > 2 * NEAR then
        local place = call('LPOS', active, id, 'RANK', '-1', 'MAXLEN', NEAR)
        if place then
          walked = walked + 2 * (length - place)
        else
          place = call('LPOS', active, id, 'MAXLEN', NEAR)
          side = place and '1' or '-1'
          walked = walked + NEAR + (place and 2 * place or 2 * NEAR + length)
        end
      else
        walked = walked + length
      end
      is_active = call('LREM', active, side, id) == 1
    end
    if is_active then
      owned_count = owned_count + 1
      owned[owned_count], owned_at[owned_count] = id, n
      bytes = bytes + #ARGV[at + 3]
    elseif not holders[n] then
      local record, keep = ARGV[at + 3], ARGV[at + 6]
      if keep == '' and record ~= '' then
        local kept = pcall('HGET', jobs, id)
        refused = refused or type(kept) == 'table' and kept
        facts[n] = kept == record and 2 or 0
      end
      for k = 1, keep == '' and 0 or even_results and 3 or 1 do -- two workers' records may be equal, not their results
        local kept = pcall('HGET', ({ results, even_results, odd_results })[k], id)
        if type(kept) == 'table' then
          refused = refused or kept
        elseif kept and (kept == keep or string.sub(kept, -#keep - 1) == ':' .. keep) then
          facts[n] = 2
        end
      end
    end
  end

  local succeeded_ids, failed_ids, succeeded_records, failed_records, dropped_ids, delayed_entries, waiting_ids, kept_entries, passing_entries, now, noted

  -- HSET says whether one record was there. Of several it would not say which, so that is asked before.
  local found, written
  if owned_count >= 3 and bytes <= LONGEST_READ then
    found, written = pcall('HMGET', jobs, unpack(owned)), {}
    refused = refused or found.err and found
  end
  for k = 1, refused and 0 or owned_count do
    local id, n = owned[k], owned_at[k]
    local at = FIRST + (n - 1) * STEP
    local status, record, keep = ARGV[at + 2], ARGV[at + 3], ARGV[at + 6]
    local is_dropped = drops and drops[status] and record ~= ''
    local fact = 0
    if found then
      fact = found[k] and 1 or 0
      if fact == 1 and record ~= '' and not is_dropped then
        written[#written + 1] = id
        written[#written + 1] = record
      end
    elseif is_dropped or record == '' then
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
      break
    end
    facts[n] = fact
    if fact == 1 then
      local delay_ms = ARGV[at + 5]
      if status ~= 'succeeded' then
        local attempt
        delay_ms, attempt = string.match(delay_ms, '^(%d+):?(.*)$')
        if attempt ~= '' and not is_dropped then
          noted = noted or {}
          noted[#noted + 1] = id
          noted[#noted + 1] = attempt
        end
      end
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
          now, passing_entries = now or now_ms(), passing_entries or {}
          passing_entries[#passing_entries + 1] = id
          passing_entries[#passing_entries + 1] = string.format('%.0f:', now + ARGV[3]) .. keep
        end
      elseif status == 'succeeded' then
        succeeded_ids = succeeded_ids or {}
        succeeded_ids[#succeeded_ids + 1] = id
        if is_noting then
          succeeded_records = succeeded_records or {}
          succeeded_records[#succeeded_ids] = record
        end
      else
        failed_ids = failed_ids or {}
        failed_ids[#failed_ids + 1] = id
        if is_noting then
          failed_records = failed_records or {}
          failed_records[#failed_ids] = record
        end
      end
      if keep ~= '' and not is_dropped then
        kept_entries = kept_entries or {}
        kept_entries[#kept_entries + 1] = id
        kept_entries[#kept_entries + 1] = keep
      end
    end
  end
  refused = refused or written and written[1] and write('HSET', jobs, written)
  if refused then
    call('LPUSH', active, unpack(owned))
    return refused
  end

  if owned[1] then
    refused = succeeded_ids and write('SADD', succeeded, succeeded_ids)
      or succeeded_ids and may_have_failed and write('SREM', failed, succeeded_ids)
      or failed_ids and (write('SADD', failed, failed_ids) or write('SREM', succeeded, failed_ids))
      or delayed_entries and write('ZADD', delayed, delayed_entries)
      or kept_entries and write('HSET', results, kept_entries)
      or is_checked and write('SREM', stalling, owned)
    if not refused and dropped_ids then
      if call('EXISTS', results, even_results, odd_results) > 0 then -- what earlier jobs of their ids have left
        refused = write('HDEL', results, dropped_ids)
          or write('HDEL', even_results, dropped_ids)
          or write('HDEL', odd_results, dropped_ids)
      end
      if not refused and passing_entries then
        -- They are kept for a while. The key's TTL is as long as an entry of its period's last moment needs.
        local keep_ms = tonumber(ARGV[3])
        local period = math.floor(now / keep_ms)
        local key = period % 2 == 0 and even_results or odd_results
        local left_ms = call('PTTL', key)
        if left_ms >= 0 and left_ms <= GRACE_MS then
          call('UNLINK', key)
          left_ms = -1
        end
        refused = write('HSET', key, passing_entries)
        local expires_at = (period + 2) * keep_ms + GRACE_MS
        if not refused and left_ms < expires_at - now then
          call('PEXPIREAT', key, string.format('%.0f', expires_at))
        end
      end
    end
    refused = refused or waiting_ids and write('LPUSH', waiting, waiting_ids)
    if refused then
      write('SREM', succeeded, succeeded_ids)
      write('SREM', failed, failed_ids)
      for n = 2, #(delayed_entries or {}), 2 do
        pcall('ZREM', delayed, delayed_entries[n])
      end
      for n = 1, #(kept_entries or {}), 2 do
        pcall('HDEL', results, kept_entries[n])
      end
      for n = 1, #(passing_entries or {}), 2 do
        pcall('HDEL', even_results, passing_entries[n])
        pcall('HDEL', odd_results, passing_entries[n])
      end
      call('LPUSH', active, unpack(owned))
      return refused
    end
    call('HDEL', claims, unpack(owned))
    if dropped_ids then
      call('HDEL', jobs, unpack(dropped_ids))
      if call('EXISTS', attempts) == 1 then
        pcall('HDEL', attempts, unpack(dropped_ids))
      end
    end
    if noted then
      -- Each failed attempt goes in front of the earlier ones; a refusal loses no job.
      for n = 1, #noted, 2 do
        local id, attempt = noted[n], noted[n + 1]
        local before = pcall('HGET', attempts, id)
        if type(before) == 'string' then
          local last = 0
          for _ = 2, MOST_ATTEMPTS do
            last = last and string.find(before, '\n', last + 1, true)
          end
          attempt = attempt .. '\n' .. string.sub(before, 1, (last or 0) - 1)
        end
        pcall('HSET', attempts, id, attempt)
      end
      pcall('PEXPIRE', attempts, ATTEMPTS_MS)
    end
    if is_noting then
      -- Notes when jobs have ended; a refusal loses no job.
      local function note_ends(key, ended, records)
        local now, entries = now_ms(), {}
        for n, id in ipairs(ended) do
          local record = records[n]
          if record == '' then
            record = call('HGET', jobs, id)
          end
          local mark = #record > LONGEST_MARKED and #record or tonumber(string.sub(redis.sha1hex(record), 1, 8), 16)
          entries[2 * n - 1] = now + mark % 2048 / 2048 -- a number: Redis writes all its digits, and sooner than Lua
          entries[2 * n] = id
        end
        pcall('ZADD', key, unpack(entries))
      end

      if succeeded_ids and ARGV[4] == 'later' then
        note_ends(succeeded_at, succeeded_ids, succeeded_records)
      end
      if failed_ids and ARGV[5] == 'later' then
        note_ends(failed_at, failed_ids, failed_records)
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
      if facts[n] == 1 and drops and drops[status] and record ~= '' then
        note(ids[n], 'state', status, 'record', record, 'keep', ARGV[at + 6])
      elseif facts[n] == 1 then
        note(ids[n])
      end
    end
    local events = ARGV[1]
    for n = 1, events ~= '' and #facts or 0 do
      if facts[n] == 1 then
        call('PUBLISH', events, ARGV[FIRST + (n - 1) * STEP + 4])
      end
    end
  end
end

-- The jobs.

local candidates, claims_before, seen = {}, {}, {}
if fetched ~= '' then
  local claim = call('HGET', claims, fetched)
  local places = call('LPOS', active, fetched, 'COUNT', '2', 'MAXLEN', FETCHED_WITHIN)
  if places[2] then
    call('LREM', active, 1, fetched) -- the job runs: what the fetch has moved was pushed twice
  elseif not (is_started and claim) and (places[1] or call('LPOS', active, fetched)) then
    candidates[1], claims_before[1], seen[fetched] = fetched, claim, true
  end
end
local is_claimed = #candidates == 1

-- What may be taken from waiting, the oldest first: nothing that runs, and nothing twice.
local is_drained = false
if wanted_ahead > 0 then
  local is_right = ahead_ms == '' or type(pcall('ZCARD', ahead)) == 'number'
  local waits = is_right and call('LLEN', waiting) or 0 -- of the wrong type, it takes no more
  is_drained = is_right and waits == 0
  wanted_ahead = is_drained and 0 or math.max(0, math.min(wanted_ahead, math.floor((waits - free) / 2)))
end
local wanted = free + wanted_ahead
local asked = wanted == 1 and { call('LINDEX', waiting, '-1') or nil } or wanted > 0 and call('LRANGE', waiting, -wanted, '-1')
local taken = asked and #asked or 0
local is_empty = taken < free or is_drained
-- How many of the jobs to hand out are for places that are free; the others are claimed ahead.
local at_once
local first_taken = #candidates + 1
if taken > 0 then
  -- A claim may be somebody's unless it is ":<deliveries>"; bee-queue's stall check leaves a dead worker's.
  local is_searched = is_mixed and length <= NEAR
  local holders_asked = fields_of(claims, asked)
  local at = #candidates
  local is_behind = claims_before[1]
  for n = taken, 1, -1 do
    local id, claim = asked[n], holders_asked[n]
    if #asked - n == free then
      at_once = at
    end
    if #asked - n >= free and (is_behind or claim) then
      taken = #asked - n
      break
    end
    is_behind = is_behind or claim
    local may_run = is_searched or claim and string.byte(claim) ~= COLON
    if may_run and not seen[id] then
      walked = walked + length
      if walked > LONGEST_WALK and n < #asked then
        taken, is_empty = #asked - n, false
        break
      end
    end
    if not (seen[id] or may_run and call('LPOS', active, id)) then
      at = at + 1
      seen[id], candidates[at], claims_before[at] = true, id, claim
    end
  end
end

-- The records, in pieces: what is longer than max_bytes is left, unless it is the first.
local records, bytes, max_bytes = {}, 0, tonumber(ARGV[7])
local first = 1
if candidates[1] and not candidates[2] then -- one alone takes less time
  records[1], first = call('HGET', jobs, candidates[1]), 2
end
while candidates[first] do
  local last = math.min(first + PIECE - 1, #candidates)
  local piece = call('HMGET', jobs, unpack(candidates, first, last))
  for n = 1, last - first + 1 do
    local record, at = piece[n], first + n - 1
    bytes = bytes + #candidates[at] + (record and #record or 0)
    if bytes > max_bytes and at > 1 and at >= first_taken then
      -- This one and those behind it stay in waiting.
      is_empty, taken = false, 0
      while at > first_taken and asked[#asked - taken] ~= candidates[at] do
        taken = taken + 1
      end
      for extra = #candidates, at, -1 do
        candidates[extra] = nil
      end
      break
    end
    records[at] = record
  end
  first = last + 1
end

if is_checked and candidates[1] then
  -- A claim is a job's first sign of life: until the next stall check marks the job, it needs no beat.
  call('SREM', stalling, unpack(candidates))
end
if taken == 1 and candidates[first_taken] then
  call('LMOVE', waiting, active, 'RIGHT', 'LEFT')
elseif taken > 0 then
  if candidates[first_taken] then
    call('LPUSH', active, unpack(candidates, first_taken))
  end
  call('LTRIM', waiting, 0, -taken - 1)
end
local is_granted = is_started and is_claimed and records[1]
local first_place = is_started and not is_granted and 1 or 0
local token, claimed, fields = ARGV[10], {}, {}
local char, granted = string.char, 0
local granted_ahead, begins, due = 0, nil, nil
for n = 1, #candidates do
  local id = candidates[n]
  if records[n] then
    local deliveries, written_deliveries = 1, '1'
    if claims_before[n] then
      deliveries = (tonumber(string.match(claims_before[n], ':(%d+)$')) or 0) + 1
      written_deliveries = deliveries
    end
    local place = granted + first_place
    if place < 10 then -- Lua takes three times as long to write a number
      place = char(ZERO + place)
    elseif place < 100 then
      place = char(ZERO + (place - place % 10) / 10, ZERO + place % 10)
    end
    local claim = token .. '.' .. place .. ':' .. written_deliveries
    if at_once and n > at_once then
      granted_ahead = granted_ahead + 1
    end
    if granted_ahead > 0 and ahead_ms ~= '' then
      begins, due = begins or {}, (due or now_ms() + ahead_ms) + 1 / 1024 -- in their order
      begins[#begins + 1] = due
      begins[#begins + 1] = claim .. ' ' .. id
    end
    fields[2 * granted + 1], fields[2 * granted + 2] = id, claim
    claimed[3 * granted + 1], claimed[3 * granted + 2], claimed[3 * granted + 3] = id, records[n], deliveries
    granted = granted + 1
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
if begins then
  call('ZADD', ahead, unpack(begins))
end
local flags = (is_empty and 1 or 0) + ((free > 0 or ahead_ms ~= '') and call('EXISTS', ahead) * 2 or 0)
return { facts, flags, claimed, is_granted and 1 or 0, granted_ahead, counted }
