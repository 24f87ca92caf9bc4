-- Which session and which workspace an event belongs to: docs/sessions.md of opsmesh, in Lua. Held
-- to the same table as every other port of it (tests/data/sessions.json).

local M = {}

local uv = vim.uv

local function named(kind, name)
  return name and name ~= '' and kind .. ':' .. name or nil
end

local function starts(text, with)
  return text:sub(1, #with) == with
end

--- tmux's or screen's session: when it is the innermost, and when its variable alone is here.
local function multiplexer(env)
  local tmux, screen, term = env.TMUX or '', env.STY or '', env.TERM or ''
  local session
  if tmux ~= '' then
    local socket, rest = tmux:match('^([^,]*),?(.*)$')
    session = ('tmux:%s:$%s'):format(socket:match('[^/]*$'), rest:match('[^,]*$'))
  end
  if session and (starts(term, 'tmux') or starts(term, 'screen')) then
    return session, nil
  end
  if screen ~= '' and starts(term, 'screen') then
    return 'screen:' .. screen, nil
  end
  return nil, session or named('screen', screen)
end

local function some(text)
  return text and text ~= '' and text or nil
end

--- The session that the terminal around us tells, and whether an editor in it is one of its own.
local function find(env)
  if some(env.OPSMESH_SESSION) then
    return env.OPSMESH_SESSION, false
  end
  local inner, outer = multiplexer(env)
  local found = inner
    or some(env.OPSMESH_EDITOR_SESSION)
    or named('zellij', env.ZELLIJ_SESSION_NAME)
    or outer
  if found then
    return found, false
  end
  found = named('kitty', env.KITTY_WINDOW_ID) or named('wezterm', env.WEZTERM_PANE)
  return found or env.XDG_SESSION_ID or '', true
end

--- The session of a process with this environment, by the rule for everybody.
function M.of_environment(env)
  return (find(env))
end

local mine

--- The session of this Neovim. In no multiplexer it is one of its own.
function M.own()
  if not mine then
    local found, alone = find(uv.os_environ())
    mine = alone and 'neovim:' .. uv.os_getpid() or found
  end
  return mine
end

--- What Neovim starts belongs to it, where it is a session of its own.
function M.export()
  if vim.env.OPSMESH_EDITOR_SESSION == nil and starts(M.own(), 'neovim:') then
    vim.env.OPSMESH_EDITOR_SESSION = M.own()
  end
end

--- The real path, of one that does not exist as far as it does.
local function real(path)
  local rest = ''
  while true do
    local found = uv.fs_realpath(path)
    if found then
      return rest == '' and found or (found == '/' and '' or found) .. rest
    end
    local parent, name = path:match('^(.*)/([^/]*)$')
    if not parent then
      return nil
    end
    if name ~= '' and name ~= '.' then
      rest = '/' .. name .. rest
    end
    path = parent == '' and '/' or parent
  end
end

local function up(folder)
  local parent = folder:match('^(.*)/[^/]*$')
  return (parent == nil or parent == '') and '/' or parent
end

--- Milliseconds for which the project of a path is believed, and how many are: each look is a dozen
--- calls of the file system.
local BELIEVED, PATHS = 5000, 100
local looked, amount = {}, 0

local function remember(path, found)
  if amount >= PATHS then
    looked, amount = {}, 0
  end
  looked[path] = { found, uv.now() }
  amount = amount + 1
  return found
end

local look

--- The project that a file or a folder is of.
function M.workspace(path, env)
  local said = (env or vim.env).OPSMESH_WORKSPACE
  if some(said) then
    return said
  end
  if env then
    return look(path, env.HOME)
  end
  local known = looked[path]
  if known and uv.now() - known[2] < BELIEVED then
    return known[1]
  end
  return remember(path, look(path, uv.os_homedir()))
end

function look(path, home)
  if path == '' or path:find('%z') then
    return path
  end
  if not starts(path, '/') then
    path = (uv.cwd() or '') .. '/' .. path
  end
  local whole = real(path)
  if not whole then
    return path
  end
  local there = uv.fs_stat(whole)
  local folder = there and there.type == 'directory' and whole or up(whole)
  local found = folder
  while not uv.fs_lstat(found .. '/.git') do
    if found == '/' then
      return folder
    end
    found = up(found)
  end
  home = some(home) or '/'
  if found == '/' or found == (uv.fs_realpath(home) or home) then
    return folder
  end
  return found
end

return M
