-- A formatter that answered nothing: ruff, pylsp, biome and bash-language-server do so, successfully,
-- when the code cannot be parsed. It has failed if the text that was to be formatted has a syntax
-- error; the answer is often there before that diagnostic, so it is waited for.

local formatting = require('opsmesh.formatting')
local hooks = require('opsmesh.hooks')

local M = {}

--- Milliseconds in which diagnostics of the text come.
M.PATIENCE = 1000
--- Milliseconds after which a syntax error is looked at once more: a report of the text before may
--- have been under way.
M.CONFIRM = 60

--- What servers call an error of syntax (as producers/lsp/facts.py): its code, in lower case.
local CODES = {
  ['invalid-syntax'] = true, ['syntax-error'] = true, syntaxerror = true, syntax = true,
  parse = true, e999 = true, e901 = true, e902 = true, e0001 = true,
} -- stylua: ignore
--- Parts of the message of any error.
local SURELY = { 'syntax ?error', 'invalid syntax', 'parse error' }
--- The same of one without a code: errors of types have one, those of syntax often none.
local PERHAPS = {
  'syntax', 'parse%f[%A]', 'parsing', 'expected', 'unterminated', 'unclosed', 'unmatched',
  'never closed', 'unindent', 'indentation', 'invalid token', 'invalid character',
  'end of file', 'end of input',
} -- stylua: ignore

local function speaks(message, patterns)
  for _, pattern in ipairs(patterns) do
    if message:find(pattern) then
      return true
    end
  end
  return false
end

--- Whether a diagnostic says that the text cannot be parsed.
function M.is_syntax(one)
  local code, message = one.code, one.message:lower()
  if code == nil or code == '' then
    return speaks(message, PERHAPS)
  end
  if CODES[tostring(code):lower()] then
    return true
  end
  local number = tonumber(code)
  if number and number >= 1000 and number < 2000 then
    return true -- TypeScript; and ShellCheck's parser, by its number
  end
  return tostring(code):find('^SC1%d%d%d$') ~= nil or speaks(message, SURELY)
end

local function syntax_error(buf)
  for _, one in ipairs(vim.diagnostic.get(buf, { severity = vim.diagnostic.severity.ERROR })) do
    if M.is_syntax(one) then
      return one
    end
  end
end

--- The text that servers know, by its number; it does not grow when a file is written.
local function version(buf)
  local versions = vim.lsp.util.buf_versions
  return versions and versions[buf] or 0
end

local seen = {} -- buffer → number of the text at the last report
local open = {} -- buffer → { version, server, method }

--- The syntax error of the text that was to be formatted, if that is still the text.
local function found(buf, asked)
  if vim.api.nvim_buf_is_valid(buf) and version(buf) == asked.version then
    return syntax_error(buf)
  end
end

--- Tell it if there is a syntax error now and in a moment; else go on waiting.
local function decide(buf)
  local asked = open[buf]
  if not asked or not found(buf, asked) then
    return
  end
  open[buf] = nil
  vim.defer_fn(
    hooks.guard(function()
      local one = found(buf, asked)
      if one then
        formatting.failed(buf, {
          message = one.message,
          method = asked.method,
          server = asked.server,
          inferred = true,
        })
      end
    end),
    M.CONFIRM
  )
end

--- A server has answered nothing.
function M.nothing(buf, server, method)
  local asked = { version = version(buf), server = server, method = method }
  open[buf] = asked
  if seen[buf] == asked.version then
    decide(buf)
  end
  -- a report that there are no errors may be of the text before, too: the next one counts as well
  vim.defer_fn(
    hooks.guard(function()
      if open[buf] == asked then
        decide(buf)
        open[buf] = nil
      end
    end),
    M.PATIENCE
  )
end

--- DiagnosticChanged.
function M.changed(buf)
  seen[buf] = version(buf)
  if open[buf] then
    decide(buf)
  end
end

return M
