-- Reads the records of jobs, and when each has last failed, as many as fit into one reply. Writes nothing.
--
-- KEYS[1] jobs      hash, id → record
-- KEYS[2] attempts  hash, id → failed attempts of the job, newest first, one a line
-- ARGV[1] max_bytes  of the records together; the first is read however long it is
-- ARGV[2…] ids        id of each job
--
-- Returns two for each id: its record, or false; and when its newest failed attempt ended, in ms as text, or "".
-- Up to the first record that does not fit: ask again for the rest.

local jobs, attempts = unpack(KEYS)
local max_bytes = unpack(ARGV, 1, 1)
local FIRST, STEP = 2, 1
max_bytes = tonumber(max_bytes)

local found, size = {}, 0
for at = FIRST, #ARGV, STEP do
  size = size + redis.call('HSTRLEN', jobs, ARGV[at])
  if size > max_bytes and at > FIRST then
    break
  end
  local lines = redis.pcall('HGET', attempts, ARGV[at])
  found[#found + 1] = redis.call('HGET', jobs, ARGV[at])
  found[#found + 1] = type(lines) == 'string' and string.match(lines, '^%[%d+,%d+,(%d+),') or ''
end
return found
