-- Where the mesh keeps its things: the XDG base directories, as router/paths.py reads them.

local M = {}

local config = require('opsmesh.config')

local function env(name)
  local value = vim.uv.os_getenv(name)
  return value and value:sub(1, 1) == '/' and value or nil
end

function M.state()
  return (env('XDG_STATE_HOME') or vim.uv.os_homedir() .. '/.local/state') .. '/opsmesh'
end

function M.spool()
  return M.state() .. '/spool'
end

--- The agent's socket.
function M.socket()
  local said = config.get().socket
  if said ~= '' then
    return vim.fs.normalize(said)
  end
  local runtime = env('XDG_RUNTIME_DIR')
  return (runtime and runtime .. '/opsmesh' or M.state() .. '/run') .. '/ingest.sock'
end

--- The program `opsmesh`: of the options, of PATH, or that which wrote these files; nil for none.
function M.program()
  local said = config.get().command
  if said ~= '' then
    return vim.fs.normalize(said)
  end
  local found = vim.fn.exepath('opsmesh')
  if found ~= '' then
    return found
  end
  local ok, installed = pcall(require, 'opsmesh.installed')
  if ok and vim.fn.executable(installed.command) == 1 then
    return installed.command
  end
  return nil
end

return M
