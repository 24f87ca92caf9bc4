-- Errors that language servers report: `editor.lsp.diagnostic.error` when a file has other ones than
-- before, `editor.lsp.diagnostic.cleared` when it has none any more. What is known stays known when
-- a buffer or a server goes: neither is a fix, and the same errors are no news when it is back.

local config = require('opsmesh.config')
local event = require('opsmesh.event')
local hooks = require('opsmesh.hooks')
local text = require('opsmesh.text')

local M = {}

--- Milliseconds in which reports that belong together come.
M.SETTLE = 30
--- A look may take this share of the time: a file with ten thousand errors is looked at more rarely.
M.SHARE = 0.1
--- As SETTLE, for a report that there are no errors: a server that starts anew, or a file that is read
--- again, has none for a moment.
M.SETTLE_CLEAR = 250
--- Files whose errors are remembered.
M.FILES = 500
--- Errors of a file that are told apart.
M.ERRORS = 500

local known, order = {}, {} -- path → server → fingerprint; paths, the oldest first
local due = {} -- buffers that are to be looked at
local timer, late
local took = 0 -- milliseconds of the last look
local servers = {} -- namespace → name of the server, false for what is none

--- The language server that a namespace belongs to: `vim.lsp.NAME.ID`, `vim.lsp.NAME.ID.WHAT`.
function M.server(namespace)
  local found = servers[namespace]
  if found == nil then
    local named = vim.diagnostic.get_namespace(namespace).name or ''
    local rest = named:match('^vim%.lsp%.(.+)$')
    found = rest and (rest:match('^(.+)%.%d+$') or rest:match('^(.+)%.%d+%.[^.]*$')) or false
    servers[namespace] = found
  end
  return found
end

--- The errors of a buffer: server → list.
function M.errors(buf)
  local found = {}
  for _, one in ipairs(vim.diagnostic.get(buf, { severity = vim.diagnostic.severity.ERROR })) do
    local server = one.namespace and M.server(one.namespace)
    if server then
      found[server] = found[server] or {}
      table.insert(found[server], one)
    end
  end
  return found
end

local function remember(path, server, fingerprint)
  if not known[path] then
    known[path] = {}
    order[#order + 1] = path
    if #order > M.FILES then
      known[table.remove(order, 1)] = nil
    end
  end
  known[path][server] = fingerprint
end

local function fingerprint(errors)
  table.sort(errors, function(a, b)
    if a.lnum ~= b.lnum then
      return a.lnum < b.lnum
    end
    return (a.col or 0) < (b.col or 0)
  end)
  local parts, seen = {}, {}
  for i = 1, math.min(#errors, M.ERRORS) do
    local one = ('%d\1%s\1%s'):format(errors[i].lnum, tostring(errors[i].code), errors[i].message)
    if not seen[one] then
      seen[one] = true
      parts[#parts + 1] = one
    end
  end
  table.sort(parts)
  return vim.fn.sha256(#errors .. '\2' .. table.concat(parts, '\2'))
end

local function told(path, server, errors)
  local first = errors[1]
  local code = first.code
  event.emit('editor.lsp.diagnostic.error', {
    path = path,
    count = #errors,
    message = text.head(first.message),
    line = first.lnum + 1,
    column = (first.col or 0) + 1,
    code = (type(code) == 'number' or type(code) == 'string') and code or nil,
    server = server,
    editor = 'neovim',
  }, { path = path })
end

local function attached(buf, server)
  return #vim.lsp.get_clients({ bufnr = buf, name = server }) > 0
end

--- Look at one buffer; gives whether some of its errors have gone and are to be looked at once more.
local function look(buf, final)
  local path = event.file(buf)
  if not path then
    return false
  end
  local errors = M.errors(buf)
  for server, list in pairs(errors) do
    local found = fingerprint(list)
    if (known[path] or {})[server] ~= found then
      remember(path, server, found)
      told(path, server, list)
    end
  end
  local gone = false
  for server in pairs(vim.deepcopy(known[path] or {})) do
    if not errors[server] and attached(buf, server) then
      gone = true
      if final then
        known[path][server] = nil
        event.emit(
          'editor.lsp.diagnostic.cleared',
          { path = path, server = server, editor = 'neovim' },
          { path = path }
        )
      end
    end
  end
  return gone and not final
end

local function typing(buf)
  return not config.get().diagnostics_in_insert
    and buf == vim.api.nvim_get_current_buf()
    and vim.api.nvim_get_mode().mode:find('^[iR]') ~= nil
end

local function run(final)
  local began = vim.uv.hrtime()
  for buf in pairs(due) do
    if not vim.api.nvim_buf_is_valid(buf) then
      due[buf] = nil
    elseif not typing(buf) then
      if look(buf, final) then
        if not late:is_active() then
          late:start(M.SETTLE_CLEAR, 0, M._late)
        end
      else
        due[buf] = nil
      end
    end
  end
  took = (vim.uv.hrtime() - began) / 1e6
end

M._soon = vim.schedule_wrap(hooks.guard(function()
  run(false)
end))
M._late = vim.schedule_wrap(hooks.guard(function()
  run(true)
end))

local function start()
  timer, late = timer or vim.uv.new_timer(), late or vim.uv.new_timer()
  if not timer:is_active() then
    timer:start(math.floor(math.max(M.SETTLE, took / M.SHARE)), 0, M._soon)
  end
end

--- DiagnosticChanged.
function M.changed(args)
  require('opsmesh.inferred').changed(args.buf)
  if not config.wants('diagnostics') then
    return
  end
  due[args.buf] = true
  if late and late:is_active() then
    late:start(M.SETTLE_CLEAR, 0, M._late) -- what was to be final is not
  end
  start()
end

--- InsertLeave, BufWritePost: what came while somebody typed.
function M.settled(args)
  if not due[args.buf] then
    return
  end
  if args.event == 'BufWritePost' and typing(args.buf) then
    look(args.buf, false) -- an automatic save: what is on disk is meant
    return
  end
  start()
end

return M
