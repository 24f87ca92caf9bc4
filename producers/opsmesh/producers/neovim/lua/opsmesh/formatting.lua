-- Formatting by language servers, synchronous or not, by whoever asks: `editor.format.failed`. What
-- is watched is a client's `rpc.request` and `request_sync`; both go through as they came.

local config = require('opsmesh.config')
local event = require('opsmesh.event')
local hooks = require('opsmesh.hooks')
local text = require('opsmesh.text')

local M = {}

--- The requests that format.
local METHODS = {
  ['textDocument/formatting'] = true,
  ['textDocument/rangeFormatting'] = true,
  ['textDocument/rangesFormatting'] = true,
}
--- Not failures: cancelled (-32800), the text has changed meanwhile (-32801), the server cancelled.
local NOT_FAILED = { [-32800] = true, [-32801] = true, [-32802] = true }

--- How many failures were told of each buffer, for those who would tell the same.
M.told = {}

--- Tell that a buffer could not be formatted.
function M.failed(buf, facts, about)
  if not config.wants('format') or not vim.api.nvim_buf_is_valid(buf) then
    return
  end
  local path = event.file(buf)
  if not path then
    return
  end
  M.told[buf] = (M.told[buf] or 0) + 1
  facts.path = path
  facts.editor = 'neovim'
  facts.message = facts.message and text.head(facts.message) or nil
  event.emit('editor.format.failed', facts, vim.tbl_extend('force', { path = path }, about or {}))
end

local answered = hooks.guard(function(client, method, buf, err, result)
  if err then
    if not NOT_FAILED[err.code] then
      M.failed(buf, {
        message = tostring(err.message or err.code),
        code = type(err.code) == 'number' and err.code or nil,
        method = method,
        server = client.name,
      })
    end
  elseif type(result) ~= 'table' or next(result) == nil then
    -- null or []: nothing to do, or nothing that could be done
    require('opsmesh.inferred').nothing(buf, client.name, method)
  end
end)

local timed_out = hooks.guard(function(client, method, buf, why)
  M.failed(buf, { message = 'no answer: ' .. why, method = method, server = client.name })
end)

local function buffer(params)
  local document = type(params) == 'table' and params.textDocument
  return document and document.uri and vim.uri_to_bufnr(document.uri)
end

local function watch_requests(client)
  local request = client.rpc.request
  client.rpc.request = function(method, params, callback, ...)
    if METHODS[method] and type(callback) == 'function' then
      local ok, buf = pcall(buffer, params)
      if ok and buf then
        local given = callback
        callback = function(err, result, ...)
          answered(client, method, buf, err, result)
          return given(err, result, ...)
        end
      end
    end
    return request(method, params, callback, ...)
  end
end

local function watch_sync(client)
  local request_sync = client.request_sync
  client.request_sync = function(...)
    -- called as client:request_sync(method, params, …), and by some still without the self
    local first, second, third = ...
    local method, params = first, second
    if type(first) == 'table' then
      method, params = second, third
    end
    if not METHODS[method] then
      return request_sync(...)
    end
    local function passed(result, err, ...)
      -- any other error has come by the callback already; interrupted is Ctrl-C
      if err == 'timeout' then
        local ok, buf = pcall(buffer, params)
        if ok and buf then
          timed_out(client, method, buf, err)
        end
      end
      return result, err, ...
    end
    return passed(request_sync(...))
  end
end

--- LspAttach.
function M.attached(args)
  local client = args.data and vim.lsp.get_client_by_id(args.data.client_id)
  if not client or client._opsmesh or type(client.rpc) ~= 'table' then
    return
  end
  client._opsmesh = true
  watch_requests(client)
  watch_sync(client)
end

return M
