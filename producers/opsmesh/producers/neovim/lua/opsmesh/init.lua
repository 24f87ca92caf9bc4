-- opsmesh for Neovim: what happens in the editor becomes events of the mesh. `:help opsmesh`.

local M = {}

--- Options over those of `vim.g.opsmesh`; nothing has to be set. See |opsmesh-options|.
function M.setup(opts)
  require('opsmesh.config').set(opts)
end

--- Tell an event of your own; gives its id, or nil when it is not told, or only later because the
--- caller is a fast callback. Never raises: what cannot be an event is counted (`:checkhealth`).
--- `about`: { path, severity, workspace, exit_code, duration_ms }, each may be missing.
function M.emit(topic, payload, about)
  local id
  local tell = require('opsmesh.hooks').guard(function()
    id = require('opsmesh.event').emit(topic, payload, about)
  end)
  if vim.in_fast_event() then
    vim.schedule(tell)
  else
    tell()
  end
  return id
end

return M
