-- Pauses the queue, in place of an earlier pause.
--
-- KEYS[1] paused   string, there while the queue is paused; also the name of a channel
-- KEYS[2] workers  sorted set, worker process → when it last beat, in ms
-- ARGV[1] everyone     "1" to hide what waits from Node peers, too: some beeq worker has to be there for that
-- ARGV[2] lasts_ms     how long the pause lasts, "0" until somebody resumes the queue
-- ARGV[3] by           who pauses it, as JSON
-- ARGV[4] reason       why, as JSON
-- ARGV[5] lifetime_ms  how long a worker counts as living without a beat
--
-- Returns the text that was written; "" if it is for everyone, and no worker lives: nothing was written.
--
-- Two callers: the later one's pause counts. Called again after a lost reply, it begins the pause again. The text is
-- put together here, for the clock is Redis's; whether it is for everyone comes before what callers have written.

local paused, workers = unpack(KEYS)
local everyone, lasts_ms, by, reason, lifetime_ms = unpack(ARGV)
lasts_ms = tonumber(lasts_ms)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_for_everyone = everyone == '1'
if is_for_everyone then
  local since, latest = string.format('%.0f', now - lifetime_ms), string.format('%.0f', now + lifetime_ms)
  if redis.call('ZCOUNT', workers, since, latest) == 0 then
    return ''
  end
end
local text = string.format(
  '{"since":%.0f,"until":%s,"everyone":%s,"by":%s,"reason":%s}',
  now,
  lasts_ms > 0 and string.format('%.0f', now + lasts_ms) or 'null',
  tostring(is_for_everyone),
  by,
  reason
)
if lasts_ms > 0 then
  redis.call('SET', paused, text, 'PX', string.format('%.0f', lasts_ms))
else
  redis.call('SET', paused, text)
end
redis.call('PUBLISH', paused, 'paused')
return text
