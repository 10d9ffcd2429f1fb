-- Returns the lengths of jobs' texts, so that callers do not read too much at once. Writes nothing.
--
-- KEYS[1] jobs         hash, id → record
-- KEYS[2] results      hash, id → result or error text, as long as the job is there
-- KEYS[3] evenResults  hash, id → due time in ms:result or error text, of dropped jobs
-- KEYS[4] oddResults   the same, of other periods
-- ARGV[1…] ids         id of each job
--
-- Returns the bytes of each job's record and results together; 0 for one that has none.

local jobs, results, even_results, odd_results = unpack(KEYS)

local sizes = {}
for at = 1, #ARGV, 1 do
  local size = 0
  for _, key in ipairs({ jobs, results, even_results, odd_results }) do
    size = size + redis.call('HSTRLEN', key, ARGV[at])
  end
  sizes[at] = size
end
return sizes
