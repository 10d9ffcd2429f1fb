-- Reads the records of jobs, as many as fit into one reply. Writes nothing.
--
-- KEYS[1] jobs  hash, id → record
-- ARGV[1]  max_bytes  of the records together; the first is read however long it is
-- ARGV[2…] ids        id of each job
--
-- Returns a list with the record of each id, or false, up to the first that does not fit: ask again for the rest.

local jobs = unpack(KEYS)
local max_bytes = unpack(ARGV, 1, 1)
max_bytes = tonumber(max_bytes)

local records, size = {}, 0
for at = 2, #ARGV, 1 do
  size = size + redis.call('HSTRLEN', jobs, ARGV[at])
  if size > max_bytes and at > 2 then
    break
  end
  records[#records + 1] = redis.call('HGET', jobs, ARGV[at])
end
return records
