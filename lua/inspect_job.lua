-- Reads all that a queue knows of one job, at one moment. Writes nothing.
--
-- KEYS[1]  jobs         hash, id → record
-- KEYS[2]  waiting      list of ids; workers pop right
-- KEYS[3]  active       list of ids
-- KEYS[4]  delayed      sorted set, id → due time in ms
-- KEYS[5]  succeeded    set of ids
-- KEYS[6]  failed       set of ids
-- KEYS[7]  claims       hash, id → token.place:deliveries
-- KEYS[8]  results      hash, id → result or error text, as long as the job is there
-- KEYS[9]  evenResults  hash, id → due time in ms:result or error text, of dropped jobs
-- KEYS[10] oddResults   the same, of other periods
-- KEYS[11] attempts     hash, id → failed attempts of the job, newest first, one a line
-- KEYS[12] hidden       list of ids that wait, before all of waiting, while they are hidden from Node peers
-- ARGV[1] job_id   the job
-- ARGV[2] longest  a record, or a result, that is longer is not read
--
-- Returns {state, record, kept, attempts, claim, where, record's length, kept's length}: state is that of the lists
-- and sets, "" if none has the id; kept its result, by the rules of read_outcome; where is the due time of a delayed
-- job as text, or how many jobs run before one that waits, -1 if they are more than LONGEST_WALK. What is not there,
-- or not read, is false; a length is 0 if there is nothing, and that of kept, if it was read.
--
-- An id may be in several places after a Node peer's retry: where it runs, or is to run, comes first. Bounded by
-- LONGEST_WALK in hidden and waiting; active is as long as many jobs run in the whole fleet.

local jobs, waiting, active, delayed, succeeded, failed, claims, results, even_results, odd_results, attempts, hidden = unpack(KEYS)
local job_id, longest = unpack(ARGV)
local call = redis.call
longest = tonumber(longest)
-- Entries of waiting that are passed by at most: some milliseconds' worth.
local LONGEST_WALK = 250000
-- No worker of beeq's writes more lines of attempts than fit into this.
local LONGEST_ATTEMPTS = 100000

local kept_length = 0
local function kept_result()
  for _, key in ipairs({ results, even_results, odd_results }) do
    local length = call('HSTRLEN', key, job_id)
    if length > longest then
      kept_length = length
      return false
    end
  end
  local kept = call('HGET', results, job_id)
  if kept then
    return kept
  end
  kept = call('HGET', even_results, job_id) or call('HGET', odd_results, job_id)
  local due = kept and string.match(kept, '^%d+')
  if not due then
    return false
  end
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  return tonumber(due) > now and string.sub(kept, #due + 2)
end

-- Returns how many of those that wait run before the job, or nil if it is not among the first LONGEST_WALK.
local hidden_count = call('LLEN', hidden)
local function count_ahead()
  local place = call('LPOS', hidden, job_id, 'RANK', -1, 'MAXLEN', LONGEST_WALK)
  if place then
    return hidden_count - place - 1
  elseif hidden_count < LONGEST_WALK then
    place = call('LPOS', waiting, job_id, 'RANK', -1, 'MAXLEN', LONGEST_WALK - hidden_count)
  end
  return place and hidden_count + call('LLEN', waiting) - place - 1
end

local length = call('HSTRLEN', jobs, job_id)
local is_read = length <= longest
local state, where = '', false
if length > 0 or call('HEXISTS', jobs, job_id) == 1 then
  local due = call('ZSCORE', delayed, job_id)
  local ahead = not due and count_ahead()
  if call('LPOS', active, job_id) then
    state = 'active'
  elseif due then
    state, where = 'delayed', due
  elseif ahead then
    state, where = 'waiting', ahead
  elseif call('SISMEMBER', succeeded, job_id) == 1 then
    state = 'succeeded'
  elseif call('SISMEMBER', failed, job_id) == 1 then
    state = 'failed'
  elseif hidden_count + call('LLEN', waiting) > LONGEST_WALK then
    state, where = 'waiting', -1
  end
end
local lines_length = redis.pcall('HSTRLEN', attempts, job_id)
local has_lines = type(lines_length) == 'number' and lines_length <= LONGEST_ATTEMPTS
local kept = kept_result()
return {
  state,
  is_read and call('HGET', jobs, job_id),
  kept,
  has_lines and call('HGET', attempts, job_id),
  call('HGET', claims, job_id),
  where,
  length,
  kept_length,
}
