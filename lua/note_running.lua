-- Notes what a worker process is and which jobs run there; Redis forgets both soon after the process has gone.
--
-- KEYS[1] running  hash, "process" → what the process says of itself; "noted" → when it did; "job:" and an id →
--                  since when that job runs; both in ms
-- ARGV[1] lifetime_ms  how long that is believed without a further note
-- ARGV[2] begins       "1": nothing of what was noted before holds any more
-- ARGV[3] process      what the process says of itself, as JSON
-- ARGV[4…] jobs        id of each job that is new, or gone, and for how many ms it has run; "" of one that is gone
--
-- Returns how many fields there are: another number than the caller expects means that something was lost.
-- Bounded by its arguments.

local running = unpack(KEYS)
local lifetime_ms, begins, process = unpack(ARGV, 1, 3)
local FIRST, STEP = 4, 2

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if begins == '1' then
  redis.call('UNLINK', running)
end
local gone, fields = {}, { 'process', process, 'noted', string.format('%.0f', now) }
for at = FIRST, #ARGV, STEP do
  local field, ran_ms = 'job:' .. ARGV[at], ARGV[at + 1]
  if ran_ms == '' then
    gone[#gone + 1] = field
  else
    fields[#fields + 1] = field
    fields[#fields + 1] = string.format('%.0f', now - ran_ms)
  end
end
if #gone > 0 then
  redis.call('HDEL', running, unpack(gone))
end
redis.call('HSET', running, unpack(fields))
redis.call('PEXPIRE', running, lifetime_ms)
return redis.call('HLEN', running)
