-- `:checkhealth opsmesh`.

local M = {}

--- Milliseconds that the check may wait for the agent.
local PATIENCE = 1500

local function agent(health)
  local ask, outbox, paths = require('opsmesh.ask'), require('opsmesh.outbox'), require('opsmesh.paths')
  health.start('opsmesh: the mesh')
  local answer, why, over
  ask.status(function(found, reason)
    answer, why, over = found, reason, true
  end)
  vim.wait(PATIENCE, function()
    return over
  end, 5)
  if answer then
    health.ok(('the agent answers (pid %s) at %s'):format(tostring(answer.pid), paths.socket()))
  else
    health.warn(
      ('%s, at %s'):format(why or 'the agent does not answer', paths.socket()),
      { 'start the mesh: opsmesh up --detach', 'events wait in the spool until then' }
    )
  end
  local program = paths.program()
  if program then
    health.ok('the program opsmesh is ' .. program)
  else
    health.warn('the program opsmesh is not on PATH', {
      'recent events of the whole mesh are not shown by :OpsMesh',
      "set the option: vim.g.opsmesh = { command = '/path/to/opsmesh' }",
    })
  end
  local told = outbox.told
  health.info(
    ('%d events told: %d acknowledged, %d in the spool, %d waiting'):format(
      told.events,
      told.sent,
      told.spooled,
      outbox.waiting()
    )
  )
  if told.dropped + told.refused > 0 then
    health.warn(
      ('%d dropped, %d refused; the last reason: %s'):format(
        told.dropped,
        told.refused,
        tostring(told.error)
      )
    )
  end
end

local function plugin(health)
  local config, hooks, session =
    require('opsmesh.config'), require('opsmesh.hooks'), require('opsmesh.session')
  health.start('opsmesh: this Neovim')
  if not vim.g.loaded_opsmesh then
    health.error('plugin/opsmesh.lua was not loaded', {
      'lazy.nvim leaves pack/*/start out: give it a spec with dir, see :help opsmesh-install',
    })
  end
  for _, problem in ipairs(config.problems()) do
    health.error('option ' .. problem, { ':help opsmesh-options' })
  end
  local options = config.get()
  if not options.enabled then
    health.warn('nothing is told: the option enabled is false')
  end
  local kinds = {}
  for name, on in pairs(options.events) do
    kinds[#kinds + 1] = (on and '' or 'no ') .. name
  end
  table.sort(kinds)
  health.info('events: ' .. table.concat(kinds, ', '))
  health.info('session: ' .. session.own())
  health.info('workspace here: ' .. session.workspace(vim.fn.getcwd()))
  if hooks.failures.count > 0 then
    health.error(
      ('the plugin failed %d times; last: %s'):format(hooks.failures.count, hooks.failures.last),
      { 'the editor was not held up by it; please report it' }
    )
  else
    health.ok('no failure of the plugin')
  end
end

local function others(health)
  health.start('opsmesh: other plugins')
  local conform = package.loaded['conform'] ~= nil
  health.info('conform.nvim: ' .. (conform and 'watched' or 'not loaded'))
  local ok, config = pcall(require, 'neotest.config')
  if ok and package.loaded['neotest'] then
    if type(config.consumers) == 'table' and config.consumers.opsmesh then
      health.ok('neotest: its consumer is there')
    else
      health.info("neotest: add consumers = { opsmesh = require('opsmesh.neotest') } to its setup")
    end
  end
  if package.loaded['overseer'] then
    health.info("overseer.nvim: put 'opsmesh' into component_aliases.default")
  end
end

--- Called by Neovim.
function M.check()
  if vim.fn.has('nvim-0.10') == 0 then
    local old = vim.health or require('health')
    local fail = old.error or old.report_error
    fail('Neovim 0.10 or newer is needed: nothing is told')
    return
  end
  plugin(vim.health)
  agent(vim.health)
  others(vim.health)
end

return M
