-- Events on their way to the agent. The one rule: nobody waits. What the agent has not acknowledged
-- stays here, within bounds; when there is no agent, or it says nothing, it goes to the spool, under
-- the same ids, so that what comes twice is stored once.

local paths = require('opsmesh.paths')
local socket = require('opsmesh.socket')
local spool = require('opsmesh.spool')

local uv = vim.uv

local M = {}

--- Events and bytes that may wait here; beyond that new ones are dropped, and counted.
M.LIMIT, M.LIMIT_BYTES = 4096, 8 * 1024 * 1024
--- Events that are under way to the agent at a time.
M.WINDOW = 128
--- Milliseconds in which the agent answers, or is given up.
M.ANSWER = 2000
--- Milliseconds until it is tried again: at first, at last.
M.FIRST, M.LONGEST = 1000, 30000
--- Milliseconds between two files of the spool.
M.GATHER = 500
--- Milliseconds that the end of Neovim may wait, in all.
M.FAREWELL = 200

--- What became of the events; `error`: the last that was said about one that did not get through.
M.told = { events = 0, sent = 0, spooled = 0, dropped = 0, refused = 0, error = nil }

local items, head, tail, upcoming, bytes = {}, 1, 0, 1, 0
local connection, connected = nil, false
local spooling = false
local retry_at, backoff, lost = 0, M.FIRST, 0
local answer_timer, spool_timer, soon

local function now()
  return uv.hrtime() / 1e6
end

--- Events that are not safe yet.
function M.waiting()
  return tail - head + 1
end

--- Whether an agent is connected.
function M.connected()
  return connected
end

local function forget(last)
  for i = head, last do
    bytes = bytes - #items[i].line
    items[i] = nil
  end
  head = last + 1
  upcoming = math.max(upcoming, head)
end

local wake

local function arm(delay)
  spool_timer = spool_timer or uv.new_timer()
  if not spool_timer:is_active() then
    spool_timer:start(delay, 0, function()
      M._spool()
    end)
  end
end

local function hang_up()
  if connection then
    connection.close()
  end
  connection, connected = nil, false
  upcoming = head
  if answer_timer then
    answer_timer:stop()
  end
end

--- What became of the first `n` lines that were given to the spool.
local function kept(n, how, why)
  if how == 'spooled' then
    M.told.spooled = M.told.spooled + n
  elseif how == 'dropped' then
    M.told.dropped = M.told.dropped + n
  else
    M.told.error = why
    return false
  end
  forget(head + n - 1)
  return true
end

local function taken()
  local lines = {}
  for i = head, tail do
    lines[#lines + 1] = items[i].line
  end
  return lines
end

--- Hand what waits to the spool, in the background.
function M._spool()
  if spooling or connected or head > tail then
    return
  end
  spooling = true
  local lines = taken()
  spool.write(M.folder, lines, function(how, why)
    spooling = false
    if not kept(#lines, how, why) then
      arm(M.LONGEST)
      return
    end
    wake()
  end)
end

--- No agent, or one that says nothing.
local function failed(why)
  M.told.error = why
  hang_up()
  retry_at = now() + backoff
  backoff = math.min(backoff * 2, M.LONGEST)
  M._spool()
end

local function watch_answers()
  answer_timer = answer_timer or uv.new_timer()
  answer_timer:start(M.ANSWER, 0, function()
    if connected and upcoming > head then
      failed('the agent does not answer')
    end
  end)
end

local function pump()
  local from = upcoming
  local last = math.min(tail, head + M.WINDOW - 1)
  if last < from then
    return
  end
  local lines = {}
  for i = from, last do
    lines[#lines + 1] = items[i].line
  end
  lines[#lines + 1] = ''
  if from == head then
    watch_answers()
  end
  upcoming = last + 1
  connection.write(table.concat(lines, '\n'))
end

local function answered(line)
  local ok, said = pcall(vim.json.decode, line)
  if not ok or type(said) ~= 'table' or type(said.ok) ~= 'boolean' or upcoming <= head then
    return
  end
  -- answers come in the order of the events; one without an id is for the oldest
  if type(said.id) == 'string' and said.id ~= items[head].id then
    return
  end
  lost, backoff = 0, M.FIRST
  if said.ok then
    M.told.sent = M.told.sent + 1
  elseif said.dropped then
    M.told.dropped = M.told.dropped + 1
  else
    M.told.refused = M.told.refused + 1
    M.told.error = tostring(said.error)
  end
  forget(head)
  if upcoming > head then
    watch_answers()
  else
    answer_timer:stop()
  end
  if upcoming <= tail then
    pump()
  end
end

local function connect()
  local mine
  mine = socket.connect(M.path, {
    open = function()
      if mine == connection then
        connected = true
        pump()
      end
    end,
    line = function(line)
      if mine == connection then
        answered(line)
      end
    end,
    closed = function(why)
      if mine ~= connection then
        return
      end
      local was = connected
      hang_up()
      lost = lost + 1
      -- one that went away was perhaps started anew: once more, then the spool
      if was and lost < 2 then
        wake()
      elseif head <= tail then
        failed(why)
      end
    end,
  })
  connection = mine
end

function wake()
  if head > tail or spooling then
    return
  end
  if connected then
    pump()
  elseif connection == nil then
    if now() >= retry_at then
      connect()
    else
      arm(M.GATHER)
    end
  end
end

--- Take an event: its id, and its line of JSON.
function M.add(id, line)
  M.told.events = M.told.events + 1
  if M.waiting() >= M.LIMIT or bytes + #line > M.LIMIT_BYTES then
    M.told.dropped = M.told.dropped + 1
    return
  end
  -- both are asked of the editor, which may not be asked in the loop
  M.path, M.folder = M.path or paths.socket(), M.folder or paths.spool()
  tail = tail + 1
  items[tail] = { id = id, line = line }
  bytes = bytes + #line
  -- in the loop's next round: who saves does not wait for what a message makes others do
  soon = soon or uv.new_timer()
  if not soon:is_active() then
    soon:start(0, 0, wake)
  end
end

--- VimLeavePre: what waits gets through, or is in the spool, within FAREWELL.
function M.flush()
  local ends = now() + M.FAREWELL
  local function wait(condition, share)
    local left = math.max(0, math.floor((ends - now()) * share))
    return condition() or vim.wait(left, condition, 2, true)
  end
  if head > tail then
    return
  end
  wake()
  wait(function()
    return head > tail or not (spooling or connection)
  end, 0.5)
  wait(function()
    return not spooling
  end, 0.5)
  -- also what is still being written to the spool, which may not come to its end: the ids are the same
  if head <= tail then
    hang_up()
    local synced = false
    local lines = taken()
    local how, why = spool.write_now(M.folder, lines, function()
      synced = true
    end)
    if kept(#lines, how, why) then
      wait(function()
        return synced
      end, 1)
    end
  end
end

return M
