-- Notes that a queue is in use, so that commands find it by its prefix alone.
--
-- KEYS[1] queues  sorted set, name of a queue → when it was last noted, in ms
-- ARGV[1] name         the queue
-- ARGV[2] lifetime_ms  how long a queue is known that nobody notes again
-- ARGV[3] most         how many queues are known at most
--
-- Returns how many are known. Those that were noted last stay; of more than `most`, up to a hundred go at once.

local queues = unpack(KEYS)
local name, lifetime_ms, most = unpack(ARGV)
-- Names that one call forgets at most beyond those whose time is over.
local AT_ONCE = 100

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', queues, string.format('%.0f', now), name)
redis.call('ZREMRANGEBYSCORE', queues, '-inf', string.format('%.0f', now - lifetime_ms))
local surplus = math.min(redis.call('ZCARD', queues) - most, AT_ONCE)
if surplus > 0 then
  redis.call('ZREM', queues, unpack(redis.call('ZRANGE', queues, 0, surplus - 1)))
end
redis.call('PEXPIRE', queues, lifetime_ms)
return redis.call('ZCARD', queues)
