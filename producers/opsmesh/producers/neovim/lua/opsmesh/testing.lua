-- `:OpsMeshTest [command]`: runs tests in the background, says how they ended, puts the output into
-- the quickfix list, and tells `editor.test.failed`.

local config = require('opsmesh.config')
local hooks = require('opsmesh.hooks')
local say = require('opsmesh.say')
local session = require('opsmesh.session')
local terminals = require('opsmesh.terminals')
local testlike = require('opsmesh.testlike')
local text = require('opsmesh.text')

local M = {}

--- Bytes of output that are kept for the quickfix list.
local KEPT = 1024 * 1024

local running = nil
local last = nil

local function command_for(file)
  local said = config.get().test_command
  if type(said) == 'function' then
    said = said(file)
  end
  if type(said) == 'string' and said ~= '' then
    return said
  end
  return last or testlike.guess(session.workspace(file))
end

local function quickfix(command, output)
  local lines = vim.split(text.plain(output), '\n', { trimempty = true })
  vim.fn.setqflist({}, ' ', { title = command, lines = lines, efm = vim.o.errorformat })
end

local function ended(command, cwd, began, output, done)
  local took = (vim.uv.hrtime() - began) / 1e6
  local mine = running
  running = nil
  quickfix(command, output)
  if mine and mine.stopped then
    say('stopped: ' .. command)
    return
  end
  if done.code == 0 and done.signal == 0 then
    say(('passed in %.1f s: %s'):format(took / 1000, command))
    return
  end
  local exit = done.signal ~= 0 and 128 + done.signal or done.code
  terminals.failed({
    command = command,
    exit_code = exit,
    duration_ms = took,
    output_tail = text.tail(text.plain(output)),
  }, cwd)
  say(
    ('failed with %d in %.1f s (:copen shows it): %s'):format(exit, took / 1000, command),
    vim.log.levels.ERROR
  )
end

--- The line with the file for each `%` that begins a word, with modifiers like `:h`. `expandcmd`
--- would take backslashes away, which are the shell's.
local function expanded(line)
  local made, i = {}, 1
  while i <= #line do
    local char = line:sub(i, i)
    i = i + 1
    if char == '%' and (i == 2 or line:sub(i - 2, i - 2):find('%s')) then
      local item = '%'
      while line:find('^:[phtre]%f[^%w]', i) do
        item, i = item .. line:sub(i, i + 1), i + 2
      end
      char = vim.fn.shellescape(vim.fn.expand(item))
    end
    made[#made + 1] = char
  end
  return table.concat(made)
end

--- Run a command line; none: that of the options, the last one, or a guess.
function M.run(line)
  if running then
    say('tests run already, :OpsMeshTest! stops them: ' .. running.command, vim.log.levels.WARN)
    return
  end
  local name = vim.api.nvim_buf_get_name(0)
  local file = name ~= '' and not name:find('^%a[%w+.-]*://') and name or vim.fn.getcwd()
  local command = line ~= '' and expanded(line) or command_for(file)
  if not command then
    say('how are tests run here? :OpsMeshTest pytest -q, or the option test_command', vim.log.levels.WARN)
    return
  end
  last = command
  local cwd = line ~= '' and vim.fn.getcwd() or session.workspace(file)
  if not vim.uv.fs_stat(cwd) then -- OPSMESH_WORKSPACE is any word
    cwd = vim.fn.getcwd()
  end
  local parts, size = {}, 0
  local function take(_, chunk)
    if chunk then
      parts[#parts + 1], size = chunk, size + #chunk
      while size > KEPT and #parts > 1 do
        size = size - #table.remove(parts, 1)
      end
    end
  end
  local began = vim.uv.hrtime()
  local argv = vim.list_extend(vim.split(vim.o.shell, ' ', { trimempty = true }), {
    vim.o.shellcmdflag,
    command,
  })
  -- detached: a process group of its own, so that what the shell started can be stopped with it
  local options = { cwd = cwd, detach = true, stdout = take, stderr = take }
  local ok, process = pcall(vim.system, argv, options, function(done)
    vim.schedule(hooks.guard(function()
      ended(command, cwd, began, table.concat(parts), done)
    end))
  end)
  if not ok then
    say('cannot start: ' .. tostring(process), vim.log.levels.ERROR)
    return
  end
  running = { command = command, process = process }
  say('running: ' .. command)
end

--- Stop what runs, with all it started: a shell that is ended alone leaves its commands behind,
--- which hold its output. Asked again: kill it.
function M.stop()
  if not running then
    say('no tests run')
    return
  end
  vim.uv.kill(-running.process.pid, running.stopped and 'sigkill' or 'sigterm')
  running.stopped = true
end

--- Neovim ends: nobody is left to hear how they end.
function M.abandon()
  if running then
    M.stop()
  end
end

--- The command that runs, nil for none.
function M.running()
  return running and running.command
end

return M
