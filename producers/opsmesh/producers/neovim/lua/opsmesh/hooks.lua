-- What of Neovim is listened to. The one rule: whatever fails here is counted, shown by
-- `:checkhealth opsmesh`, and never reaches the editor (`guard`).

local M = {}

--- Failures of our own in this Neovim, and what the last one said.
M.failures = { count = 0, last = nil }

--- `fn`, whose errors are counted instead of raised. It never gives anything back: an autocommand
--- that gives true is deleted.
function M.guard(fn)
  return function(...)
    local ok, err = pcall(fn, ...)
    if not ok then
      M.failures.count = M.failures.count + 1
      M.failures.last = tostring(err)
    end
  end
end

--- Call a function of one of our modules, which is loaded only now.
local function call(module, name)
  return M.guard(function(...)
    require('opsmesh.' .. module)[name](...)
  end)
end

local function on(group, event, module, name, more)
  vim.api.nvim_create_autocmd(
    event,
    vim.tbl_extend('keep', { group = group, callback = call(module, name) }, more or {})
  )
end

--- Autocommands and commands.
function M.install()
  local group = vim.api.nvim_create_augroup('opsmesh', { clear = true })
  require('opsmesh.session').export()
  on(group, 'BufWritePost', 'saves', 'written')
  on(group, 'DiagnosticChanged', 'diagnostics', 'changed')
  on(group, { 'InsertLeave', 'BufWritePost' }, 'diagnostics', 'settled')
  on(group, 'LspAttach', 'formatting', 'attached')
  on(group, 'CmdlineLeave', 'filters', 'typed', { pattern = ':' })
  on(group, { 'FilterWritePost', 'FilterReadPost' }, 'filters', 'passed')
  on(group, 'ShellFilterPost', 'filters', 'ended')
  local look = call('conform', 'look')
  vim.api.nvim_create_autocmd({ 'VimEnter', 'BufReadPost', 'InsertEnter', 'BufWritePre' }, {
    group = group,
    callback = function()
      if package.loaded['conform'] then -- before that ours is not needed either
        look()
      end
    end,
  })
  on(group, 'TermOpen', 'terminals', 'opened')
  on(group, 'TermClose', 'terminals', 'closed')
  local flush, abandon = call('outbox', 'flush'), call('testing', 'abandon')
  vim.api.nvim_create_autocmd('VimLeavePre', {
    group = group,
    callback = function()
      if package.loaded['opsmesh.testing'] then
        abandon()
      end
      if package.loaded['opsmesh.outbox'] then -- else nothing was told
        flush()
      end
    end,
  })
  require('opsmesh.commands').define()
end

return M
