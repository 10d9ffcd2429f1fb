-- Returns the queue's pause, and moves its waiting jobs to where they belong: hidden from Node peers by a
-- pause for everyone, else in waiting. On request it ends the pause.
--
-- KEYS[1] paused   string, there while the queue is paused; also the name of a channel
-- KEYS[2] waiting  list of ids; workers pop right
-- KEYS[3] hidden   list of ids that wait, each of them before all of waiting
-- ARGV[1] ends      "1" to end the pause, once everything is in waiting again; how its text begins: to end that one, and
--                  none that has taken its place since an earlier call
-- ARGV[2] limit     how many ids to move one by one at most
-- ARGV[3] in_steps  "1" if the user may not RENAME, as an earlier call has said
--
-- Returns {pause, left, needs_steps, refusal}: the text of the pause before the call, or false; how many ids
-- are still in the wrong list: call again; 1 if RENAME was refused; Redis's error if it refused to move ids,
-- or "".
--
-- Bounded by its limit; a whole list is renamed. Waiting and hidden, one behind the other, are the same at
-- any moment, so the order stays, and a reader that pages through both sees each id once. Ids that come into
-- waiting during the pause go behind the hidden ones, also when the pause is over; then hidden becomes
-- waiting. The pause lasts until that is done, so that beeq's workers begin with the oldest. Meanwhile a Node
-- worker may take ids from waiting. Two callers share the work. A key of the wrong type hides nothing; the
-- pause is still returned.

local paused, waiting, hidden = unpack(KEYS)
local ends, limit, in_steps = unpack(ARGV)
local call, pcall = redis.call, redis.pcall
limit = tonumber(limit)

local function is_error(reply)
  return type(reply) == 'table' and reply.err
end

local pause = pcall('GET', paused)
if is_error(pause) then
  pause = false -- a stranger's key
end
local is_ending = ends == '1' or (ends ~= '' and pause and string.sub(pause, 1, #ends) == ends)
local is_hiding = not is_ending and pause and string.find(pause, '^{"since":%d+,"until":[%dnul]+,"everyone":true[,}]')
local hidden_count, waiting_count = pcall('LLEN', hidden), pcall('LLEN', waiting)
local needs_steps, refusal = in_steps == '1', ''

-- Removes from a list the ids pushed to the other one; returns how many remain, 0 if the push was refused.
local function trim(pushed, list, first, last)
  if is_error(pushed) then
    refusal = pushed.err
    return 0
  end
  call('LTRIM', list, first, last)
  return call('LLEN', list)
end

-- Puts the oldest of waiting behind the hidden ids.
local function gather()
  local ids = call('LRANGE', waiting, -limit, -1)
  if not ids[1] then
    return 0
  end
  call('LTRIM', waiting, 0, -1) -- who lacks that right has to fail before ids are in both lists
  local oldest_first = {}
  for n = #ids, 1, -1 do
    oldest_first[#oldest_first + 1] = ids[n]
  end
  return trim(pcall('LPUSH', hidden, unpack(oldest_first)), waiting, 0, -#ids - 1)
end

-- Puts the newest of the hidden ids in front of waiting.
local function scatter()
  call('LTRIM', hidden, 0, -1)
  local ids = call('LRANGE', hidden, 0, limit - 1)
  return trim(pcall('RPUSH', waiting, unpack(ids)), hidden, #ids, -1)
end

-- Gives a whole list another name, which nothing has; returns whether that was done.
local function rename(from, to)
  needs_steps = needs_steps or is_error(pcall('RENAME', from, to)) and true
  return not needs_steps
end

local left = 0
if is_error(hidden_count) or is_error(waiting_count) then
  left = 0
elseif is_hiding and waiting_count > 0 then
  if hidden_count > 0 or not rename(waiting, hidden) then
    left = gather()
  end
elseif not is_hiding and hidden_count > 0 then
  if not needs_steps then
    left = gather()
  end
  if left == 0 and refusal == '' and not rename(hidden, waiting) then
    left = scatter()
  end
end
if is_ending and left > 0 and pause and needs_steps then
  -- Else workers would hide again what the next calls are about to show.
  local for_workers = string.gsub(pause, '("everyone":)true', '%1false', 1)
  call('SET', paused, for_workers, 'KEEPTTL')
elseif is_ending and left == 0 and refusal == '' then
  call('DEL', paused)
  if pause then
    call('PUBLISH', paused, 'resumed')
  end
end
return { pause, left, needs_steps and 1 or 0, refusal }
