-- Formatters that a buffer is filtered through, `:%!black -q -` or `gq` with 'formatprg':
-- `editor.format.failed` when one ends badly. `:r !cmd` and `:w !cmd` are none.

local formatting = require('opsmesh.formatting')

local M = {}

--- Filters whose exit status of 1 says something about the text.
local NOT_FORMATTERS = {
  grep = true, egrep = true, fgrep = true, rg = true, ag = true, diff = true, cmp = true,
  test = true,
} -- stylua: ignore

--- The Ex command that was typed, while it runs; `gq` types one too.
local command = nil
local wrote, read = {}, {} -- buffers whose text went out, and came back

--- CmdlineLeave of `:`.
function M.typed()
  if vim.v.event.abort then
    return
  end
  local line = vim.fn.getcmdline()
  local at = line:find('!', 1, true)
  if not at then
    return
  end
  command = { before = line:sub(1, at - 1), run = line:sub(at + 1) }
  local mine = command
  vim.schedule(function()
    if command == mine then
      command = nil
    end
  end)
end

--- FilterWritePost, FilterReadPost: the text is on its way through a program.
function M.passed(args)
  local set = args.event == 'FilterWritePost' and wrote or read
  set[vim.api.nvim_get_current_buf()] = true
  vim.schedule(function() -- an external diff passes buffers on too, and ends without a word
    wrote, read = {}, {}
  end)
end

--- A word that can be a program's name.
local function program(run)
  for word in run:gmatch('%S+') do
    if not word:find('^[%w_]+=') then
      return word:match('[^/]*$')
    end
  end
  return ''
end

--- ShellFilterPost.
function M.ended()
  local buf = vim.api.nvim_get_current_buf()
  local went, came = wrote[buf], read[buf]
  wrote[buf], read[buf] = nil, nil
  local status = vim.v.shell_error
  -- Ctrl-C (130), and a program that is not there (127) under a name that nobody has
  if status == 0 or status == 130 then
    return
  end
  if command then
    local verb = command.before:match('(%a+)%s*$') or ''
    if verb == 'r' or verb:find('^re') or verb:find('^w') then
      return
    end
  elseif not (went and came) then
    return -- :r ! or :w ! of a script; with 'noshelltemp' nobody can tell
  end
  local run = command and command.run or ''
  if NOT_FORMATTERS[program(run)] then
    return
  end
  formatting.failed(buf, {
    message = ('the filter ended with exit status %d'):format(status),
    command = run ~= '' and run or nil,
    exit_code = status,
  }, { exit_code = status })
end

return M
