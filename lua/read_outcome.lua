-- Reads a job's state and how it ended, all at one moment. Writes nothing.
--
-- KEYS[1] jobs         hash, id → record
-- KEYS[2] results      hash, id → result or error text, as long as the job is there
-- KEYS[3] evenResults  hash, id → due time in ms:result or error text, of dropped jobs
-- KEYS[4] oddResults   the same, of other periods
-- KEYS[5] succeeded    set of ids
-- KEYS[6] failed       set of ids
-- KEYS[7] active       list of ids
-- ARGV[1] job_id       the job
-- ARGV[2] longest      a record, or a result, that is longer is not read
-- ARGV[3] with_record  "1" to read the record too, and whether the job runs; "" for those who wait for its end:
--                      they look often, records may be large, and active may be long
--
-- Returns {1 if there is a record, result or false, 1 if in succeeded, 1 if in failed, record or false, 1 if in
-- active}. The result is read only where it can show how the job ended: in a set of ended ids, or without a
-- record.
--
-- The sets are read because the record's status is not enough: after a Node peer's manual retry it is
-- "failed" until the next finish. A dropped job's result that is past its time is not returned, though its
-- key may exist for longer.

local jobs, results, even_results, odd_results, succeeded, failed, active = unpack(KEYS)
local job_id, longest, with_record = unpack(ARGV)
longest = tonumber(longest)

local function is_short(key)
  return redis.call('HSTRLEN', key, job_id) <= longest
end

local function kept_result()
  if not (is_short(results) and is_short(even_results) and is_short(odd_results)) then
    return false
  end
  local kept = redis.call('HGET', results, job_id)
  if kept then
    return kept
  end
  kept = redis.call('HGET', even_results, job_id) or redis.call('HGET', odd_results, job_id)
  local due = kept and string.match(kept, '^%d+')
  if not due then
    return false
  end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  return tonumber(due) > now and string.sub(kept, #due + 2)
end

local exists = redis.call('HEXISTS', jobs, job_id)
local has_succeeded = redis.call('SISMEMBER', succeeded, job_id)
local has_failed = redis.call('SISMEMBER', failed, job_id)
local is_over = exists == 0 or has_succeeded == 1 or has_failed == 1
return {
  exists,
  is_over and kept_result(),
  has_succeeded,
  has_failed,
  with_record == '1' and is_short(jobs) and redis.call('HGET', jobs, job_id),
  with_record == '1' and redis.call('LPOS', active, job_id) and 1 or 0,
}
