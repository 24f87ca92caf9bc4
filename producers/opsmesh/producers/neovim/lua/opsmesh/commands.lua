-- The commands `:OpsMesh` and `:OpsMeshTest`.

local M = {}

local function say(...)
  require('opsmesh.say')(...) -- nothing is loaded before it is needed
end

--- A word as the value that it looks like.
local function value(word)
  if word == 'true' or word == 'false' then
    return word == 'true'
  end
  return tonumber(word) or word
end

local function emit(words)
  local topic, payload = words[1], vim.empty_dict()
  if not topic or not topic:find('^[a-z0-9_]+%.[a-z0-9_.]+$') then
    say('a topic is needed: :OpsMesh emit deploy.requested target=staging', vim.log.levels.ERROR)
    return
  end
  for i = 2, #words do
    local key, word = words[i]:match('^([%w_]+)=(.*)$')
    if not key then
      say(words[i] .. ' is not key=value', vim.log.levels.ERROR)
      return
    end
    payload[key] = value(word)
  end
  local name = vim.api.nvim_buf_get_name(0)
  local path = name ~= '' and not name:find('^%a[%w+.-]*://') and name or vim.fn.getcwd()
  local id = require('opsmesh.event').emit(topic, payload, { path = path })
  say(id and ('%s %s'):format(topic, id) or 'nothing is told: the option enabled is false')
end

local function answer(choice)
  return function(words)
    if not words[1] then
      say((':OpsMesh %s ID [comment]; :OpsMesh shows what waits'):format(choice), vim.log.levels.ERROR)
      return
    end
    require('opsmesh.view').answer(words[1], choice, table.concat(words, ' ', 2))
  end
end

local function switch(on)
  return function()
    local config = require('opsmesh.config')
    config.get().enabled = on
    say(on and 'events are told' or 'nothing is told until :OpsMesh enable')
  end
end

local subcommands = {
  status = function()
    require('opsmesh.view').show()
  end,
  approve = answer('approve'),
  deny = answer('deny'),
  emit = emit,
  enable = switch(true),
  disable = switch(false),
  health = function()
    vim.cmd.checkhealth('opsmesh')
  end,
  test = function(words)
    require('opsmesh.testing').run(table.concat(words, ' '))
  end,
}

local function names()
  local found = vim.tbl_keys(subcommands)
  table.sort(found)
  return found
end

local function run(opts)
  local words = vim.deepcopy(opts.fargs)
  local name = table.remove(words, 1) or 'status'
  if not subcommands[name] then
    say(('%s is none of %s'):format(name, table.concat(names(), ', ')), vim.log.levels.ERROR)
    return
  end
  subcommands[name](words)
end

--- What may follow in `:OpsMesh …`.
function M.complete(lead, line)
  local words = vim.split(line, '%s+', { trimempty = true })
  local n = #words - (lead == '' and 0 or 1) -- whole words before the cursor
  local found = {}
  if n <= 1 then
    found = names()
  elseif n == 2 and (words[2] == 'approve' or words[2] == 'deny') then
    for _, one in ipairs(require('opsmesh.view').questions) do
      found[#found + 1] = tostring(one.id)
    end
  end
  return vim.tbl_filter(function(one)
    return vim.startswith(one, lead)
  end, found)
end

--- Define both.
function M.define()
  vim.api.nvim_create_user_command('OpsMesh', run, {
    nargs = '*',
    complete = M.complete,
    desc = 'opsmesh: status, recent events, and what waits for you',
  })
  vim.api.nvim_create_user_command('OpsMeshTest', function(opts)
    local testing = require('opsmesh.testing')
    if opts.bang then
      testing.stop()
    else
      testing.run(opts.args)
    end
  end, {
    nargs = '*',
    bang = true,
    complete = 'shellcmd',
    desc = 'opsmesh: run tests in the background, and tell when they fail',
  })
end

return M
