-- Tries commands on a key of their own, so that a missing right shows before the command is first needed.
--
-- KEYS[1] tried        string, for as long as this call takes
-- ARGV[1] lifetime_ms  of the key, where the user may delete nothing
-- ARGV[2…] commands    the words of each call, separated by spaces; KEY means the key
--
-- Returns words and error of each call that failed for another reason than the key's type. A command for
-- another type than a string fails with that error, after the right was checked. Where the key cannot be
-- made, nothing else is tried.
-- Bounded by its arguments. Nothing remains; if the user may delete nothing, nothing after lifetime_ms.

local tried = unpack(KEYS)
local lifetime_ms = unpack(ARGV, 1, 1)
local FIRST, STEP = 2, 1
local failed = {}

local function try(words)
  local command = {}
  for word in string.gmatch(words, '%S+') do
    command[#command + 1] = word == 'KEY' and tried or word
  end
  local reply = redis.pcall(unpack(command))
  local is_refused = type(reply) == 'table' and reply.err and not string.find(reply.err, 'WRONGTYPE', 1, true)
  if is_refused then
    failed[#failed + 1] = words
    failed[#failed + 1] = reply.err
  end
  return not is_refused
end

if try('SET KEY 1 PX ' .. lifetime_ms) then
  for at = FIRST, #ARGV, STEP do
    try(ARGV[at])
  end
  redis.pcall('UNLINK', tried)
end
return failed
