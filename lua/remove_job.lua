-- Removes a job from everywhere.
--
-- KEYS[1]  succeeded    set of ids
-- KEYS[2]  failed       set of ids
-- KEYS[3]  waiting      list of ids
-- KEYS[4]  active       list of ids
-- KEYS[5]  stalling     set of ids
-- KEYS[6]  jobs         hash, id → record
-- KEYS[7]  delayed      sorted set, id → due time in ms
-- KEYS[8]  claims       hash, id → token.place:deliveries
-- KEYS[9]  results      hash, id → result or error text
-- KEYS[10] evenResults  hash, id → due time in ms:result or error text, of dropped jobs
-- KEYS[11] oddResults   the same, of other periods
-- KEYS[12] outbox       stream of changed ids, for the mirror
-- KEYS[13] attempts     hash, id → failed attempts of the job
-- KEYS[14] succeededAt  sorted set, id → when the job succeeded; dropped later
-- KEYS[15] failedAt     sorted set, the same of jobs that have failed
-- KEYS[16] hidden       list of ids that wait, before all of waiting, while they are hidden from Node peers
-- ARGV[1] job_id        the job
-- ARGV[2] outbox_limit  how many changes the outbox holds at most, "0" to note none
--
-- Returns 1 if there was a record, 0 if not.
--
-- The lists are searched even if a set has the id: an id may be finished and queued at once after a
-- Node peer's manual retry. A job that runs is stopped by its worker's next beat; without its claim and its
-- record, its outcome is refused.

local succeeded, failed, waiting, active, stalling, jobs, delayed, claims, results, even_results, odd_results, outbox, attempts, succeeded_at, failed_at, hidden = unpack(KEYS)
local job_id, outbox_limit = unpack(ARGV)

if outbox_limit ~= '0' then
  local record, keep = redis.call('HGET', jobs, job_id), redis.call('HGET', results, job_id)
  local is_queued = redis.call('LPOS', active, job_id)
    or redis.call('ZSCORE', delayed, job_id)
    or redis.call('LPOS', waiting, job_id)
    or redis.call('LPOS', hidden, job_id)
  local state = is_queued and 'cancelled'
    or redis.call('SISMEMBER', succeeded, job_id) == 1 and 'succeeded'
    or redis.call('SISMEMBER', failed, job_id) == 1 and 'failed'
    or 'cancelled'
  if record then
    local change = { 'id', job_id, 'state', state, 'record', record, 'keep', keep or '' }
    redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', unpack(change))
  end
end
redis.call('LREM', waiting, 0, job_id)
redis.call('LREM', hidden, 0, job_id)
redis.call('LREM', active, 0, job_id)
redis.call('SREM', succeeded, job_id)
redis.call('SREM', failed, job_id)
redis.call('SREM', stalling, job_id)
redis.call('ZREM', delayed, job_id)
redis.call('HDEL', claims, job_id)
redis.call('HDEL', results, job_id)
redis.call('HDEL', even_results, job_id)
redis.call('HDEL', odd_results, job_id)
redis.call('HDEL', attempts, job_id)
redis.pcall('ZREM', succeeded_at, job_id)
redis.pcall('ZREM', failed_at, job_id)
return redis.call('HDEL', jobs, job_id)
