-- A file was saved: `editor.save`.

local config = require('opsmesh.config')
local event = require('opsmesh.event')

local M = {}

--- In the name of a file that `opsmesh doctor --probe` saves, and hops that fire no profile
--- (producers/wiring.py).
local PROBED, PROBE_HOPS = 'opsmesh-probe-', 1000

--- BufWritePost.
function M.written(args)
  local probe = args.match:find(PROBED, 1, true) ~= nil
  if not (probe or config.wants('save')) or vim.bo[args.buf].buftype ~= '' then
    return
  end
  -- `:w other` writes another file than the buffer's: that one is told, without what is the buffer's
  local path = event.named(args.match)
  if not path then
    return
  end
  local own = path == vim.api.nvim_buf_get_name(args.buf)
  local there = vim.uv.fs_stat(path)
  local filetype = own and vim.bo[args.buf].filetype or ''
  event.emit('editor.save', {
    path = path,
    language = filetype ~= '' and filetype or nil,
    lines = own and vim.api.nvim_buf_line_count(args.buf) or nil,
    bytes = there and there.size or nil,
    editor = 'neovim',
  }, { path = path, severity = probe and 'info' or nil, hops = probe and PROBE_HOPS or nil })
end

return M
