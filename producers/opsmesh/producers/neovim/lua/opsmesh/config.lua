-- The options, from `require('opsmesh').setup{}` over `vim.g.opsmesh` over the defaults. A wrong one
-- is named by `:checkhealth opsmesh`, and the default holds.

local M = {}

M.defaults = {
  --- false: nothing is told.
  enabled = true,
  --- Which events are told.
  events = { save = true, diagnostics = true, format = true, test = true },
  --- Files of which nothing is told: globs; one without a slash is for the name alone.
  ignore = { '**/.git/**' },
  --- Errors that come while you type are told at once, not when you leave insert mode or save.
  diagnostics_in_insert = false,
  --- What `:OpsMeshTest` runs: a command line, or a function of the file that gives one.
  test_command = '',
  --- Further commands that are tests: Lua patterns, looked for in a command line.
  test_patterns = {},
  --- The agent's socket, and the program; found by themselves.
  socket = '',
  command = '',
}

--- Types beside that of the default.
local also = { test_command = 'function' }

local given = nil
local merged, from = nil, nil
local problems = {}
local ignored = nil

local function check(options, defaults, where)
  local good = {}
  for name, value in pairs(options) do
    local default = defaults[name]
    if default == nil then
      problems[#problems + 1] = ('%s%s is no option'):format(where, name)
    elseif type(value) ~= type(default) and type(value) ~= also[name] then
      problems[#problems + 1] = ('%s%s is a %s, not a %s'):format(
        where,
        name,
        type(value),
        type(default)
      )
    elseif name == 'events' then
      good[name] = check(value, default, 'events.')
    else
      good[name] = value
    end
  end
  return vim.tbl_extend('keep', good, defaults)
end

--- Take options of `setup`.
function M.set(options)
  given, merged = options or {}, nil
end

--- What holds now.
function M.get()
  local global = vim.g.opsmesh
  if merged and (given or vim.deep_equal(global, from)) then
    return merged
  end
  problems, ignored = {}, nil
  from = global
  local options = type(global) == 'table' and global or {}
  options = vim.tbl_extend('force', options, type(given) == 'table' and given or {})
  merged = check(options, M.defaults, '')
  return merged
end

--- What is wrong with the options, a line each.
function M.problems()
  M.get()
  return problems
end

--- Whether events of a kind (save, diagnostics, format, test) are told.
function M.wants(kind)
  local config = M.get()
  return config.enabled and config.events[kind] == true
end

local function compiled()
  local globs = M.get().ignore -- forgets what was made of older ones
  if ignored then
    return ignored
  end
  ignored = {}
  for _, glob in ipairs(globs) do
    local ok, pattern = pcall(vim.glob.to_lpeg, glob)
    if ok then
      ignored[#ignored + 1] = { pattern = pattern, name = not glob:find('/', 1, true) }
    else
      problems[#problems + 1] = ('ignore: %s is no glob'):format(vim.inspect(glob))
    end
  end
  return ignored
end

--- Whether nothing is told of this file.
function M.ignores(path)
  for _, one in ipairs(compiled()) do
    if one.pattern:match(one.name and vim.fs.basename(path) or path) then
      return true
    end
  end
  return false
end

return M
