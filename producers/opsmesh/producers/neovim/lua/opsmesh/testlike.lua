-- Which command lines run tests, and what a file's tests are usually run with.

local config = require('opsmesh.config')

local M = {}

--- Programs that do nothing else.
local RUNNERS = {
  pytest = true, ['py.test'] = true, tox = true, nox = true, nosetests = true, jest = true,
  vitest = true, mocha = true, ava = true, rspec = true, phpunit = true, pest = true, ctest = true,
  bats = true, busted = true, nextest = true, gotestsum = true, trial = true,
} -- stylua: ignore

--- A program, and the word by which it runs tests.
local VERBS = {
  cargo = { test = true, nextest = true, t = true },
  go = { test = true },
  npm = { test = true, t = true, ['run-script'] = 'test', run = 'test' },
  pnpm = { test = true, t = true, run = 'test' },
  yarn = { test = true, run = 'test' },
  bun = { test = true, run = 'test' },
  deno = { test = true },
  mix = { test = true },
  dotnet = { test = true },
  swift = { test = true },
  zig = { test = true },
  gradle = { test = true, check = true },
  gradlew = { test = true, check = true },
  mvn = { test = true, verify = true },
  rake = { test = true, spec = true },
  rails = { test = true },
  make = { test = true, check = true, tests = true },
  just = { test = true },
  task = { test = true },
  bazel = { test = true },
  stack = { test = true },
  cabal = { test = true },
  meson = { test = true },
  ninja = { test = true },
} -- stylua: ignore

--- Programs that run the rest of the line.
local WRAPPERS = {
  uv = 'run', poetry = 'run', pipenv = 'run', hatch = 'run', pdm = 'run', rye = 'run', npx = '',
  pnpx = '', bunx = '', env = '', sudo = '', time = '', nice = '', bundle = 'exec', opsmesh = 'exec',
  timeout = '', xvfb = '', ['xvfb-run'] = '', sh = '', bash = '', zsh = '', fish = '',
} -- stylua: ignore

local function base(word)
  return word:gsub('^["\']+', ''):gsub('["\']+$', ''):match('[^/]*$')
end

local function simple(words, i)
  -- NAME=value and options before the program
  while words[i] and (words[i]:find('^[%w_]+=') or words[i]:find('^%-')) do
    i = i + 1
  end
  if not words[i] then
    return false
  end
  local name = base(words[i])
  if RUNNERS[name] then
    return true
  end
  if name:find('^python[%d.]*$') or name == 'pypy3' then
    for j = i + 1, #words - 1 do
      if words[j] == '-m' then
        local module = words[j + 1]
        return RUNNERS[module] or module == 'unittest' or false
      end
    end
    return false
  end
  if VERBS[name] then
    for j = i + 1, #words do
      local verb = base(words[j])
      local means = VERBS[name][verb]
      if means == true then
        return true
      end
      if means and words[j + 1] and words[j + 1]:find('^' .. means) then
        return true
      end
      if not words[j]:find('^[%-+]') and not means and name ~= 'make' and name ~= 'just' then
        return false
      end
    end
    return false
  end
  if WRAPPERS[name] then
    local rest = i + 1
    if WRAPPERS[name] ~= '' and words[rest] ~= WRAPPERS[name] then
      return false
    end
    rest = WRAPPERS[name] ~= '' and rest + 1 or rest
    if name == 'timeout' then
      rest = rest + 1
    end
    return simple(words, rest)
  end
  return false
end

--- Whether a command line runs tests.
function M.is_test(command)
  for _, pattern in ipairs(config.get().test_patterns) do
    local ok, found = pcall(string.find, command, pattern)
    if ok and found then
      return true
    end
  end
  for part in (command:gsub('&&', '\n'):gsub('||', '\n'):gsub('[;|]', '\n')):gmatch('[^\n]+') do
    local words = {}
    for word in part:gmatch('%S+') do
      words[#words + 1] = base(word) == '' and word or (word:gsub('^["\']+', ''):gsub('["\']+$', ''))
    end
    if simple(words, 1) then
      return true
    end
  end
  return false
end

--- A file that a project has, and how its tests are run.
local PROJECTS = {
  { 'Cargo.toml', 'cargo test' },
  { 'go.mod', 'go test ./...' },
  { 'pytest.ini', 'python3 -m pytest -q' },
  { 'pyproject.toml', 'python3 -m pytest -q' },
  { 'tox.ini', 'python3 -m pytest -q' },
  { 'setup.cfg', 'python3 -m pytest -q' },
  { 'package.json', 'npm test --silent' },
  { 'mix.exs', 'mix test' },
  { 'deno.json', 'deno test' },
  { 'build.zig', 'zig build test' },
}

--- The command for the tests of a project, nil where there is no guess.
function M.guess(root)
  for _, one in ipairs(PROJECTS) do
    if vim.uv.fs_stat(root .. '/' .. one[1]) then
      return one[2]
    end
  end
  return nil
end

return M
