-- One connection to the agent's socket, line by line. Never waits: everything is told to callbacks,
-- which run in the loop and may call nothing of the editor.

local uv = vim.uv

local M = {}

--- The longest path that fits into a UNIX socket's address.
local MAX_ADDRESS = 107
--- Bytes of one line from the agent.
local MAX_LINE = 4 * 1024 * 1024

--- Connect. `on.open()`, `on.line(text)`, and `on.closed(why)` once, also when it never opened.
--- Gives { write(text), close() }; after `close` nothing is called any more.
function M.connect(path, on)
  local pipe = uv.new_pipe(false)
  local folder
  local connection = {}
  local over = false
  local held = ''

  local function finish(why)
    if over then
      return
    end
    connection.close()
    on.closed(why)
  end

  function connection.close()
    if over then
      return
    end
    over = true
    if folder then
      uv.fs_close(folder)
      folder = nil
    end
    if not pipe:is_closing() then
      pipe:close()
    end
  end

  function connection.write(text)
    if not over then
      pipe:write(text, function(err)
        if err then
          finish(err)
        end
      end)
    end
  end

  local function read(err, chunk)
    if over then
      return
    end
    if err or not chunk then
      finish(err or 'it hung up')
      return
    end
    held = held .. chunk
    local from = 1
    while not over do
      local at = held:find('\n', from, true)
      if not at then
        break
      end
      on.line(held:sub(from, at - 1))
      from = at + 1
    end
    held = held:sub(from)
    if #held > MAX_LINE then
      finish('a line without an end')
    end
  end

  if #path > MAX_ADDRESS then
    local parent, name = path:match('^(.*)/([^/]*)$')
    folder = uv.fs_open(parent, 'r', 0)
    path = ('/proc/self/fd/%d/%s'):format(folder or -1, name)
  end
  local ok, why = pcall(pipe.connect, pipe, path, function(err)
    if over then
      return
    end
    if folder then
      uv.fs_close(folder)
      folder = nil
    end
    if err then
      finish(err)
      return
    end
    pipe:read_start(read)
    on.open()
  end)
  if not ok then
    local timer = uv.new_timer() -- never called back before the caller has what it was given
    timer:start(0, 0, function()
      timer:close()
      finish(tostring(why))
    end)
  end
  return connection
end

return M
