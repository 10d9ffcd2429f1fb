-- Removes finished jobs, many at once; each only if it is still what the caller has read.
--
-- KEYS[1] succeeded  set of ids
-- KEYS[2] failed     set of ids
-- KEYS[3] active     list of ids
-- KEYS[4] stalling   set of ids
-- KEYS[5] jobs       hash, id → record
-- KEYS[6] delayed    sorted set, id → due time in ms
-- KEYS[7] claims     hash, id → token.place:deliveries
-- KEYS[8] results    hash, id → result or error text
-- KEYS[9] outbox     stream of changed ids, for the mirror
-- KEYS[10] attempts  hash, id → failed attempts of the job
-- KEYS[11] succeededAt  sorted set, id → when the job succeeded; dropped later
-- KEYS[12] failedAt     sorted set, the same of jobs that have failed
-- ARGV[1]  state         which jobs: "succeeded" or "failed"
-- ARGV[2]  outbox_limit  how many changes the outbox holds at most, "0" to note none
-- ARGV[3…] jobs          id of each job, and its record as the caller read it
--
-- Returns for each job 1 if it was removed, 0 if not: then nothing of it was written.
--
-- Bounded by its arguments, and by how many jobs run. The losing orders: the job was retried (not in
-- the set, or another record), removed, or removed and saved again (not in the set, or no such record).
-- Waiting is not searched: a caller that queues a finished job takes its id from failed in the same step. Only
-- a Node peer's retry of a job that has not failed does not; its id is then dropped
-- from waiting where it is met, like every id without a record.
-- What may be refused (a key of the wrong type) comes before anything is changed.

local succeeded, failed, active, stalling, jobs, delayed, claims, results, outbox, attempts, succeeded_at, failed_at = unpack(KEYS)
local call, ARGV = redis.call, ARGV
local FIRST, STEP = 3, 2
local state, outbox_limit = unpack(ARGV, 1, 2)
local finished = state == 'succeeded' and succeeded or failed

for _, key in ipairs({ succeeded, failed, stalling }) do
  call('SCARD', key)
end
for _, key in ipairs({ jobs, claims, results, attempts }) do
  call('HLEN', key)
end
call('ZCARD', delayed)
local is_running = {}
for _, id in ipairs(call('LRANGE', active, 0, -1)) do
  is_running[id] = true
end

local facts = {}
for at = FIRST, #ARGV, STEP do
  local id, seen = ARGV[at], ARGV[at + 1]
  local is_same = call('SISMEMBER', finished, id) == 1
    and call('HGET', jobs, id) == seen
    and not is_running[id]
    and not call('ZSCORE', delayed, id)
  if is_same then
    if outbox_limit ~= '0' then
      local change = { 'id', id, 'state', state, 'record', seen, 'keep', call('HGET', results, id) or '' }
      redis.pcall('XADD', outbox, 'MAXLEN', '~', outbox_limit, '*', unpack(change))
    end
    call('SREM', succeeded, id)
    call('SREM', failed, id)
    call('SREM', stalling, id)
    call('HDEL', claims, id)
    call('HDEL', results, id)
    call('HDEL', attempts, id)
    call('HDEL', jobs, id)
    redis.pcall('ZREM', succeeded_at, id)
    redis.pcall('ZREM', failed_at, id)
  end
  facts[#facts + 1] = is_same and 1 or 0
end
return facts
