-- The component `opsmesh` for overseer.nvim: a task that runs tests and fails is an
-- `editor.test.failed`. Put it into `component_aliases.default`.

return {
  desc = 'Tell opsmesh about tests that fail',
  serializable = false, -- a saved task must load where opsmesh is gone
  constructor = function()
    local hooks = require('opsmesh.hooks')

    local tell = hooks.guard(function(self, task)
      local command = type(task.cmd) == 'table' and table.concat(task.cmd, ' ') or tostring(task.cmd)
      if not require('opsmesh.testlike').is_test(command) and not self.tests(task) then
        return
      end
      local terminals = require('opsmesh.terminals')
      local buf = task.get_bufnr and task:get_bufnr()
      terminals.failed({
        command = command,
        exit_code = task.exit_code,
        duration_ms = self.began and (vim.uv.hrtime() - self.began) / 1e6 or nil,
        output_tail = buf and terminals.shown(buf) or nil,
      }, task.cwd or vim.fn.getcwd())
    end)

    return {
      tests = function(task)
        local tags = task.metadata and task.metadata.tags or {}
        return type(tags) == 'table' and vim.tbl_contains(tags, 'TEST')
      end,
      on_start = function(self)
        self.began = vim.uv.hrtime()
      end,
      on_complete = function(self, task, status)
        if status == 'FAILURE' then
          tell(self, task)
        end
      end,
    }
  end,
}
