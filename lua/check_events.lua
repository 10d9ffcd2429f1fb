-- Finds the messages of the events channel that are about this database's jobs: a channel spans all databases
-- of a server.
-- Writes nothing.
--
-- KEYS[1] id           string, counter of automatic ids
-- KEYS[2] jobs         hash, id → record
-- KEYS[3] succeeded    set of ids
-- KEYS[4] failed       set of ids
-- KEYS[5] active       list of ids
-- KEYS[6] claims       hash, id → token.place:deliveries
-- KEYS[7] results      hash, id → result or error text, as long as the job is there
-- KEYS[8] evenResults  hash, id → due time in ms:result or error text, of dropped jobs
-- KEYS[9] oddResults   the same, of other periods
-- ARGV[1]  read_bytes    a longer record, or longer result of another length than the message's, is not read
-- ARGV[2]  longest_walk  how many ids of active are looked at for one message, at most
-- ARGV[3…] events        of each message: the job's id, the event's name, and its data as text ("null" for none; "":
--                        the text is not known)
--
-- Returns for each message a verdict and a mark. Verdict: 1 if the keys agree, 0 if they disagree, 2 if
-- nothing is left of such a job here. Mark: a text that differs for another run of the job (its record), or
-- "" if there is none; by it the caller recognises a second message of one end.
--
-- An end counts only if the job has ended here, in that way; where its outcome is kept (beeq's workers keep it), only
-- with that outcome. The kept outcome of an earlier job of the id proves nothing: Node peers add and finish
-- jobs without dropping it. A Node peer's removeOnSuccess leaves nothing but the counter: a number that it
-- has given out counts as a job that was here.
-- Bounded by its arguments. Where a record is not read, its length is the mark.

local counter, jobs, succeeded, failed, active, claims, results, even_results, odd_results = unpack(KEYS)
local read_bytes, longest_walk = unpack(ARGV, 1, 2)
local call, ARGV = redis.call, ARGV
local FIRST, STEP = 3, 3
read_bytes = tonumber(read_bytes)
-- What is before the text in an entry of the results: times and the kind.
local HEAD_BYTES = 64
local COLON = 58
local KINDS = { s = 'succeeded', f = 'failed', c = 'failed' }
local last_number, now

local function is_given_out(id)
  if not string.match(id, '^[1-9]%d*$') or #id > 15 then
    return false
  end
  last_number = last_number or tonumber(call('GET', counter) or 0) or 0
  return tonumber(id) <= last_number
end

-- A claim begins with its token; one without an owner, with a colon.
local function is_claimed(id)
  local claim = call('HGET', claims, id)
  return claim and string.byte(claim) ~= COLON
end

local function is_over(due)
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return tonumber(due) <= now
end

-- Returns whether the entry is of this event, its creation time, and all of it but the text. An entry that is
-- longer than such an event's, and too long to be read, is of another.
local function compared(key, id, event, data)
  local entry_length = call('HSTRLEN', key, id)
  if entry_length == 0 then
    return nil
  end
  local is_like = data ~= '' and entry_length > #data and entry_length <= #data + HEAD_BYTES
  if not is_like and entry_length > read_bytes then
    return false, nil, ''
  end
  local entry = call('HGET', key, id)
  local head, text = string.match(entry, '^([%d:]*%a)(.*)$')
  if not head or (key ~= results and is_over(string.match(head, '^%d+') or 0)) then
    return nil
  end
  local is_same = KINDS[string.sub(head, -1)] == event and text == data
  return is_same, string.match(head, '(%d+):%a$'), head
end

local function judge_gone(id, event, data)
  for _, key in ipairs({ results, even_results, odd_results }) do
    local is_same, _, head = compared(key, id, event, data)
    if is_same ~= nil then
      local is_end = event == 'succeeded' or event == 'failed'
      return (is_same or not is_end) and 1 or 0, head
    end
  end
  return is_given_out(id) and 1 or 2, ''
end

local function judge(id, event, data)
  local record_length = call('HSTRLEN', jobs, id)
  if record_length == 0 and call('HEXISTS', jobs, id) == 0 then
    return judge_gone(id, event, data)
  end
  local record = record_length <= read_bytes and call('HGET', jobs, id)
  local mark = record or tostring(record_length)
  if event == 'succeeded' or event == 'failed' then
    if call('SISMEMBER', event == 'failed' and failed or succeeded, id) == 0 then
      return 0, ''
    end
    local is_same, created = compared(results, id, event, data)
    if is_same == false and not (created and record and not string.find(record, '"timestamp":' .. created, 1, true)) then
      return 0, ''
    end
    return 1, mark
  end
  local has_ended = call('SISMEMBER', succeeded, id) == 1 or call('SISMEMBER', failed, id) == 1
  local has_begun = has_ended or not record or string.find(record, '"status":' .. '"retrying"', 1, true)
  if event == 'progress' then
    has_begun = has_begun or is_claimed(id) or call('LPOS', active, id, 'MAXLEN', longest_walk)
  elseif event ~= 'retrying' then
    has_begun = true -- the content of other events is unknown
  end
  return has_begun and 1 or 0, (has_ended or event == 'retrying') and mark or ''
end

local verdicts = {}
for at = FIRST, #ARGV, STEP do
  local verdict, mark = judge(ARGV[at], ARGV[at + 1], ARGV[at + 2])
  verdicts[#verdicts + 1] = verdict
  verdicts[#verdicts + 1] = mark or ''
end
return verdicts
