-- Tests that run in a terminal of Neovim (`:terminal pytest`, vim-test, toggleterm …):
-- `editor.test.failed` when one ends badly. What is typed into a shell is the shell's own to tell.

local config = require('opsmesh.config')
local event = require('opsmesh.event')
local hooks = require('opsmesh.hooks')
local testlike = require('opsmesh.testlike')
local text = require('opsmesh.text')

local M = {}

--- Lines at the end of a terminal that are looked at.
local LINES = 200
--- Milliseconds until the last output stands in the buffer.
local DRAWN = 30
--- Not failures: hung up, Ctrl-C, killed and ended by somebody.
local NOT_FAILED = { [129] = true, [130] = true, [137] = true, [143] = true }

local running = {} -- buffer → { command, cwd, began }

local function command_of(buf)
  local job = vim.b[buf].terminal_job_id
  local ok, info = pcall(vim.api.nvim_get_chan_info, job or 0)
  if ok and type(info.argv) == 'table' and #info.argv > 0 then
    return table.concat(info.argv, ' ')
  end
  return vim.api.nvim_buf_get_name(buf):match('^term://.-//%d+:(.*)$') or ''
end

--- TermOpen.
function M.opened(args)
  if not config.wants('test') then
    return
  end
  local command = command_of(args.buf)
  if testlike.is_test(command) then
    local cwd = vim.api.nvim_buf_get_name(args.buf):match('^term://(.-)//%d+:') or ''
    running[args.buf] = {
      command = command,
      cwd = vim.fn.fnamemodify(cwd ~= '' and cwd or vim.fn.getcwd(), ':p'),
      began = vim.uv.hrtime(),
    }
  end
end

--- The end of what a terminal shows.
function M.shown(buf)
  if not vim.api.nvim_buf_is_valid(buf) then
    return ''
  end
  local lines = vim.api.nvim_buf_get_lines(buf, -LINES, -1, false)
  while #lines > 0 and (vim.trim(lines[#lines]) == '' or lines[#lines]:find('^%[Process exited')) do
    lines[#lines] = nil
  end
  return text.tail(text.plain(table.concat(lines, '\n')))
end

--- TermClose.
function M.closed(args)
  local ran, status = running[args.buf], vim.v.event.status
  running[args.buf] = nil
  if not ran or type(status) ~= 'number' or status <= 0 or NOT_FAILED[status] then
    return
  end
  local took = (vim.uv.hrtime() - ran.began) / 1e6
  local before = M.shown(args.buf)
  vim.defer_fn(
    hooks.guard(function()
      local output = M.shown(args.buf)
      M.failed({
        command = ran.command,
        exit_code = status,
        duration_ms = took,
        output_tail = output ~= '' and output or before,
      }, ran.cwd)
    end),
    DRAWN
  )
end

--- Tell a test run that failed in `cwd`.
function M.failed(facts, cwd)
  if not config.wants('test') then
    return
  end
  facts.editor = 'neovim'
  facts.duration_ms = facts.duration_ms and math.floor(facts.duration_ms * 10) / 10
  if facts.output_tail == '' then
    facts.output_tail = nil
  end
  event.emit('editor.test.failed', facts, {
    path = facts.path or cwd,
    exit_code = facts.exit_code,
    duration_ms = facts.duration_ms,
  })
end

return M
