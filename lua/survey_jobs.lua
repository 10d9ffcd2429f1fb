-- Reads the records of jobs, and when each has last failed, as many as fit into one reply. Writes nothing.
--
-- KEYS[1] jobs      hash, id → record
-- KEYS[2] attempts  hash, id → failed attempts of the job, newest first, one a line
-- ARGV[1] max_bytes  of the records together; the first is read if it is no longer than longest
-- ARGV[2] longest    a record that is longer is not read
-- ARGV[3…] ids        id of each job
--
-- Returns two for each id: its record, its length if that is more than longest, or false; and when its newest failed
-- attempt ended, in ms as text, or "". Up to the first record that does not fit: ask again for the rest.

local jobs, attempts = unpack(KEYS)
local max_bytes, longest = unpack(ARGV, 1, 2)
local FIRST, STEP = 3, 1
-- No worker of beeq's writes more lines of attempts than fit into this.
local LONGEST_ATTEMPTS = 100000
max_bytes, longest = tonumber(max_bytes), tonumber(longest)

local found, size = {}, 0
for at = FIRST, #ARGV, STEP do
  local id = ARGV[at]
  local length = redis.call('HSTRLEN', jobs, id)
  local is_read = length <= longest
  size = size + (is_read and length or 0)
  if size > max_bytes and at > FIRST then
    break
  end
  local lines_length = redis.pcall('HSTRLEN', attempts, id)
  local lines = type(lines_length) == 'number'
    and lines_length <= LONGEST_ATTEMPTS
    and redis.call('HGET', attempts, id)
  if is_read then
    found[#found + 1] = redis.call('HGET', jobs, id)
  else
    found[#found + 1] = length
  end
  found[#found + 1] = lines and string.match(lines, '^%[%d+,%d+,(%d+),') or ''
end
return found
