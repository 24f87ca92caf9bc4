-- The consumer for neotest: `consumers = { opsmesh = require('opsmesh.neotest') }`. Each test that
-- fails is an `editor.test.failed`, with its place and its error.

local hooks = require('opsmesh.hooks')
local terminals = require('opsmesh.terminals')
local text = require('opsmesh.text')

--- Tests of one run that are told one by one.
local EACH = 50

local function failure(tree, id, result, kind)
  local node = tree and tree:get_key(id)
  local position = node and node:data() or {}
  if position.type ~= kind then
    return nil
  end
  local first = (result.errors or {})[1] or {}
  local range = position.range or (node.closest_value_for and node:closest_value_for('range')) or {}
  local line = first.line or range[1]
  local message = first.message or result.short
  return {
    nodeid = id,
    message = message and text.head(text.plain(message)) or nil,
    path = position.path,
    line = line and line + 1 or nil,
    output_tail = result.short and text.tail(text.plain(result.short)) or nil,
  }
end

local function failures(tree, results, kind)
  local found = {}
  for id, result in pairs(results) do
    if result.status == 'failed' then
      found[#found + 1] = failure(tree, id, result, kind)
    end
  end
  table.sort(found, function(a, b)
    return a.nodeid < b.nodeid
  end)
  return found
end

local tell = hooks.guard(function(tree, results)
  local found = failures(tree, results, 'test')
  if #found == 0 then
    found = failures(tree, results, 'file') -- one that could not even be loaded
  end
  for i = 1, math.min(#found, EACH) do
    found[i].failed = #found
    terminals.failed(found[i], found[i].path)
  end
end)

return function(client)
  client.listeners.results = function(adapter_id, results, partial)
    if partial then
      return
    end
    local ok, tree = pcall(client.get_position, client, nil, { adapter = adapter_id })
    if ok then
      vim.schedule(function()
        tell(tree, results)
      end)
    end
  end
  return {}
end
