-- conform.nvim, where it is: its formatters run outside of what Neovim tells, so `conform.format` is
-- wrapped once it is loaded. Arguments, answers and errors go through as they came.

local formatting = require('opsmesh.formatting')
local hooks = require('opsmesh.hooks')

local M = {}

--- What it says when nothing was tried, or the text is another one by now.
local NOT_FAILED = {
  '^No formatters available',
  '^No result returned from LSP',
  'buffer was deleted',
  'concurrent modification',
  'was interrupted',
}

local function failed(buf, err, names)
  for _, pattern in ipairs(NOT_FAILED) do
    if err:find(pattern) then
      return
    end
  end
  formatting.failed(buf, { message = vim.trim(err), command = names ~= '' and names or nil })
end

local function names_of(conform, opts, buf)
  if type(opts.formatters) == 'table' then
    return table.concat(opts.formatters, ', ')
  end
  local ok, found = pcall(conform.list_formatters_to_run, buf)
  if not ok or type(found) ~= 'table' then
    return ''
  end
  return table.concat(
    vim.tbl_map(function(one)
      return one.name
    end, found),
    ', '
  )
end

local function wrap(conform)
  local format = conform.format
  conform.format = function(opts, callback, ...)
    local buf = type(opts) == 'table' and (opts.bufnr or opts.buf) or 0
    buf = (type(buf) ~= 'number' or buf == 0) and vim.api.nvim_get_current_buf() or buf
    local before = formatting.told[buf] or 0
    local tell = hooks.guard(function(err)
      -- a language server's error has been told by its own road
      if type(err) == 'string' and (formatting.told[buf] or 0) == before then
        failed(buf, err, names_of(conform, type(opts) == 'table' and opts or {}, buf))
      end
    end)
    return format(opts, function(err, ...)
      tell(err)
      if callback then
        return callback(err, ...)
      end
    end, ...)
  end
end

local watched

--- Wrap it once it is there.
function M.look()
  local conform = package.loaded['conform']
  if type(conform) ~= 'table' or type(conform.format) ~= 'function' or watched == conform then
    return
  end
  watched = conform
  wrap(conform)
end

return M
