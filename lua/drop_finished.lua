-- Drops ended jobs that ended too long ago, or are too many; the oldest first, some a call.
--
-- KEYS[1]  succeeded      set of ids
-- KEYS[2]  failed         set of ids
-- KEYS[3]  waiting        list of ids
-- KEYS[4]  active         list of ids
-- KEYS[5]  stalling       set of ids
-- KEYS[6]  jobs           hash, id → record
-- KEYS[7]  delayed        sorted set, id → due time in ms
-- KEYS[8]  claims         hash, id → token.place:deliveries
-- KEYS[9]  results        hash, id → result or error text
-- KEYS[10] outbox         stream of changed ids, for the mirror
-- KEYS[11] attempts       hash, id → failed attempts of the job
-- KEYS[12] succeededAt    sorted set, id → when a worker has recorded that the job succeeded, in ms, and a mark
-- KEYS[13] failedAt       sorted set, the same of jobs that have failed
-- KEYS[14] seenSuccess  sorted set, id → when a job that others have finished was first seen succeeded, and a mark
-- KEYS[15] seenFailure  sorted set, the same of jobs that have failed
-- KEYS[16] hidden         list of ids that wait, as in waiting, while a pause hides them
-- ARGV[1] state         which jobs: "succeeded" or "failed"
-- ARGV[2] age_ms        drop jobs that ended longer ago, "" for none of them
-- ARGV[3] count         drop the oldest of more than so many, "" for none of them
-- ARGV[4] is_own        "1": look only at what such workers have recorded, not at what was seen
-- ARGV[5] limit         how many notes to look at, at most
-- ARGV[6] max_bytes     of the records of jobs that are dropped; the first goes however long it is
-- ARGV[7] outbox_limit  how many changes the outbox holds at most, "0" to note none
--
-- Returns {dropped, has_more}: how many jobs were dropped; 1 if there are more to look at, which are due.
--
-- A note is about one run of one job: its mark identifies the record at the end of that run, by the digest,
-- or by the length if that is more than LONGEST_MARKED. A job that was retried, saved again or run by others
-- since has another record, is in another set, or queued: then the note goes and the job stays. The mark is
-- the fraction of the score, in 2048ths of a millisecond.
--
-- Bounded by its arguments, by NEAR and by how long a record is that goes alone. A finished id that waits, where Node
-- has queued it by hand, is looked for among the oldest and newest of the lists; one that runs on a beeq worker has
-- a claim. An outbox that is half full is left to the mirror first: its history must not lose how these jobs ended.
-- What may be refused (a key of the wrong type) comes before anything is changed. Memory need not be left.

local succeeded, failed, waiting, active, stalling, jobs, delayed, claims, results, outbox, attempts, succeeded_at, failed_at, seen_success, seen_failure, hidden = unpack(KEYS)
local state, age_ms, count, is_own, limit, max_bytes, outbox_limit = unpack(ARGV)
local call = redis.call
local LONGEST_MARKED, NEAR = 4096, 1000
local finished = state == 'succeeded' and succeeded or failed
local own = state == 'succeeded' and succeeded_at or failed_at
local seen = state == 'succeeded' and seen_success or seen_failure
limit, max_bytes = tonumber(limit), tonumber(max_bytes)

-- The notes that are due: the oldest of both sets, in one order.
local time = call('TIME')
local ended_before = age_ms ~= '' and time[1] * 1000 + math.floor(time[2] / 1000) - age_ms or -1
local total = call('ZCARD', own) + (is_own == '1' and 0 or call('ZCARD', seen))
local too_many = count ~= '' and total - count or 0
local lists, places = { call('ZRANGE', own, 0, limit, 'WITHSCORES'), {} }, { 1, 1 }
if is_own ~= '1' then
  lists[2] = call('ZRANGE', seen, 0, limit, 'WITHSCORES')
end
local notes, has_more = {}, 0
while true do
  local first, second = tonumber(lists[1][places[1] + 1]), tonumber(lists[2][places[2] + 1])
  local which = (not second or (first and first <= second)) and 1 or 2
  local at = which == 1 and first or second
  if not at or (at >= ended_before and #notes >= too_many) then
    break
  end
  if #notes == limit then
    has_more = 1
    break
  end
  notes[#notes + 1] = { id = lists[which][places[which]], at = at, is_seen = which == 2 }
  places[which] = places[which] + 2
end
if not notes[1] then
  return { 0, 0 }
end

if outbox_limit ~= '0' and call('XLEN', outbox) * 2 > tonumber(outbox_limit) then
  return { 0, 0 }
end
for _, key in ipairs({ succeeded, failed, stalling }) do
  call('SCARD', key)
end
for _, key in ipairs({ results, attempts }) do
  call('HLEN', key)
end

local ids = {}
for n, note in ipairs(notes) do
  ids[n] = note.id
end
local are_finished = call('SMISMEMBER', finished, unpack(ids))
local due = call('ZMSCORE', delayed, unpack(ids))
local holders = call('HMGET', claims, unpack(ids))
local noted = call('ZMSCORE', own, unpack(ids))
local is_queued = {}
for _, key in ipairs({ waiting, hidden, active }) do
  for _, range in ipairs({ { 0, NEAR - 1 }, { -NEAR, -1 } }) do
    for _, id in ipairs(call('LRANGE', key, range[1], range[2])) do
      is_queued[id] = true
    end
  end
end

local function mark_of(id, length)
  local mark = length > LONGEST_MARKED and length
    or tonumber(string.sub(redis.sha1hex(call('HGET', jobs, id)), 1, 8), 16)
  return mark % 2048 / 2048
end

local dropped, looked, bytes = {}, { own = {}, seen = {} }, 0
for n, note in ipairs(notes) do
  local id, holder = note.id, holders[n]
  local is_claimed = holder and string.sub(holder, 1, 1) ~= ':'
  local is_outdated = note.is_seen and noted[n]
  local length = 0
  if are_finished[n] == 1 and not (is_outdated or is_claimed or due[n] or is_queued[id]) then
    length = call('HSTRLEN', jobs, id)
  end
  if length > 0 and mark_of(id, length) == note.at % 1 then
    bytes = bytes + length
    if bytes > max_bytes and dropped[1] then
      has_more = 1
      break
    end
    dropped[#dropped + 1] = id
    if outbox_limit ~= '0' then
      local change = { 'state', state, 'record', call('HGET', jobs, id), 'keep', call('HGET', results, id) or '' }
      redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', 'id', id, unpack(change))
    end
  end
  local list = note.is_seen and looked.seen or looked.own
  list[#list + 1] = id
end

if dropped[1] then
  for _, key in ipairs({ succeeded, failed, stalling }) do
    call('SREM', key, unpack(dropped))
  end
  for _, key in ipairs({ claims, results, attempts, jobs }) do
    call('HDEL', key, unpack(dropped))
  end
end
if looked.own[1] then
  call('ZREM', own, unpack(looked.own))
end
if looked.seen[1] then
  call('ZREM', seen, unpack(looked.seen))
end
return { #dropped, has_more }
