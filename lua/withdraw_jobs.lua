-- Takes jobs that have not ended out of the queue, many at once: removes them, or ends them as cancelled. Each only
-- if it is still what the caller has read.
--
-- KEYS[1]  waiting      list of ids; workers pop right
-- KEYS[2]  active       list of ids; the oldest claim is at the right
-- KEYS[3]  delayed      sorted set, id → due time in ms
-- KEYS[4]  succeeded    set of ids
-- KEYS[5]  failed       set of ids
-- KEYS[6]  stalling     set of ids
-- KEYS[7]  jobs         hash, id → record
-- KEYS[8]  claims       hash, id → token.place:deliveries
-- KEYS[9]  results      hash, id → result or error text, as long as the job is there
-- KEYS[10] evenResults  hash, id → due time in ms:result or error text, of dropped jobs; used in even
-- KEYS[11] oddResults   the same, in odd periods of keep_ms: either key goes by its TTL before its next turn
-- KEYS[12] cancelled    sorted set, claim → when it was cancelled, in ms; also the name of a channel
-- KEYS[13] outbox       stream of changed ids, for the mirror
-- KEYS[14] attempts     hash, id → failed attempts of the job
-- KEYS[15] hidden       list of ids that wait, before all of waiting, while they are hidden from Node peers
-- ARGV[1]  state         where the jobs are: "waiting", "active" or "delayed"
-- ARGV[2]  start         of a list: about how many entries lie to the right of the first of the jobs
-- ARGV[3]  span          of a list: among about how many entries the jobs are
-- ARGV[4]  keep_ms       how long to keep that a job was cancelled
-- ARGV[5]  memory_ms     how long a worker may take to hear of it
-- ARGV[6]  events        name of the events channel
-- ARGV[7]  outbox_limit  how many changes the outbox holds at most, "0" to note none
-- ARGV[8…] jobs          of each job: id, record as the caller read it; text to keep as its outcome and event
--                        message where it is cancelled, both "" where it is removed
--
-- Returns for each job 1 if it was taken out, 0 if not: it has moved or changed, nothing of it was written. There may
-- be fewer facts than jobs: the others were not looked at.
--
-- Bounded by its arguments and by LONGEST_WALK. A list may be a million entries long: the jobs are looked for near
-- where the caller saw them, and one by one from the right only where they are not there. All that are found are
-- replaced by one text, and that goes by a single pass from the nearer end. The losing orders: a worker has taken
-- the job (not in the list), it has ended, was removed, or removed and saved again (no such record). What may be
-- refused (a key of the wrong type) comes before a job leaves a list.

local waiting, active, delayed, succeeded, failed, stalling, jobs, claims, results, even_results, odd_results, cancelled, outbox, attempts, hidden = unpack(KEYS)
local call, ARGV = redis.call, ARGV
local FIRST, STEP = 8, 4
local state, start, span, keep_ms, memory_ms, events, outbox_limit = unpack(ARGV, 1, 7)
start, span, keep_ms = tonumber(start), tonumber(span), tonumber(keep_ms)
-- Entries of a list that one call passes by at most, looking for single ids: some milliseconds' worth.
local LONGEST_WALK = 250000
-- So many entries at the right may have left since the caller looked, and so many may have come back.
local LEFT, BACK = 2000, 200
-- See exchange.lua: a key with results outlives its last entry by so much.
local GRACE_MS = 1000
local GONE = '\0gone\0'

for _, key in ipairs({ succeeded, failed, stalling }) do
  call('SCARD', key)
end
for _, key in ipairs({ jobs, claims, results, even_results, odd_results, attempts }) do
  call('HLEN', key)
end
call('ZCARD', cancelled)
-- From the right to the left, as if they were one; of each its length, and how much of it was marked.
local lists = {}
for n, key in ipairs(state == 'waiting' and { hidden, waiting } or state == 'active' and { active } or {}) do
  local length = call('LLEN', key)
  lists[n] = { key = key, length = length, marked = 0, farthest = 0, nearest = length }
end
if state == 'delayed' then
  call('ZCARD', delayed)
end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Where the ids near the expected place are: id → list, and index from its right, -1 being the last.
local list_of, index_of = {}, {}
local first, most = math.max(0, start - LEFT), start + span + BACK
for _, list in ipairs(lists) do
  if first < list.length and most > 0 then
    local near = call('LRANGE', list.key, -most, -first - 1)
    for n, id in ipairs(near) do
      list_of[id], index_of[id] = list, n - #near - 1 - first
    end
  end
  first, most = math.max(0, first - list.length), most - list.length
end

local function keep_outcome(id, keep)
  for _, key in ipairs({ results, even_results, odd_results, attempts }) do
    call('HDEL', key, id) -- what this and earlier jobs of the id have left
  end
  if keep == '' then
    return
  end
  local period = math.floor(now / keep_ms)
  local kept = period % 2 == 0 and even_results or odd_results
  local left_ms = call('PTTL', kept)
  if left_ms >= 0 and left_ms <= GRACE_MS then
    call('UNLINK', kept)
    left_ms = -1
  end
  call('HSET', kept, id, string.format('%.0f:', now + keep_ms) .. keep)
  local expires_at = (period + 2) * keep_ms + GRACE_MS -- as long as an entry of the period's last moment needs
  if left_ms < expires_at - now then
    call('PEXPIREAT', kept, string.format('%.0f', expires_at))
  end
end

local walked, facts = 0, {}

-- Returns the list that has an id which is not where it is expected, and its index from the right.
local function search(id)
  for _, list in ipairs(lists) do
    local place = call('LPOS', list.key, id, 'RANK', -1)
    walked = walked + list.length - (place or 0)
    if place then
      return list, place - list.length
    end
  end
end

for at = FIRST, #ARGV, STEP do
  local id, seen, keep, message = unpack(ARGV, at, at + STEP - 1)
  local claim = call('HGET', claims, id)
  local has_owner = claim and string.sub(claim, 1, 1) ~= ':'
  local is_same = call('HGET', jobs, id) == seen
  if is_same and state ~= 'active' and has_owner then
    walked = walked + call('LLEN', active)
    is_same = not call('LPOS', active, id) -- it runs: what waits was queued once more than needed
  end
  local list, index
  if is_same and lists[1] then
    list, index = list_of[id], index_of[id]
    if not index then
      list, index = search(id)
    end
    is_same = index
  elseif is_same then
    is_same = call('ZREM', delayed, id) == 1
  end
  if is_same then
    if outbox_limit ~= '0' then
      local change = { 'id', id, 'state', 'cancelled', 'record', seen }
      redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', unpack(change))
    end
    if index then
      call('LSET', list.key, index, GONE)
      index_of[id] = nil
      list.marked = list.marked + 1
      list.farthest, list.nearest = math.max(list.farthest, -index), math.min(list.nearest, -index)
    end
    keep_outcome(id, keep)
    if message ~= '' and has_owner then
      call('ZADD', cancelled, string.format('%.0f', now), claim)
      call('ZREMRANGEBYSCORE', cancelled, '-inf', string.format('%.0f', now - memory_ms))
      call('PEXPIRE', cancelled, memory_ms)
      call('PUBLISH', cancelled, claim)
    end
    call('SREM', succeeded, id)
    call('SREM', failed, id)
    call('SREM', stalling, id)
    call('HDEL', claims, id)
    call('HDEL', jobs, id)
    if message ~= '' then
      call('PUBLISH', events, message)
    end
  end
  facts[#facts + 1] = is_same and 1 or 0
  if walked > LONGEST_WALK then
    break
  end
end
for _, list in ipairs(lists) do
  if list.marked > 0 then
    local side = list.farthest <= list.length - list.nearest and -1 or 1
    call('LREM', list.key, side * list.marked, GONE)
  end
end
return facts
