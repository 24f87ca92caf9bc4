-- Questions to the mesh, each answered later: to the agent by a connection of its own, and to the
-- program `opsmesh` for what lies in the stream. Callbacks come in main context, exactly once.

local paths = require('opsmesh.paths')
local socket = require('opsmesh.socket')

local M = {}

--- Milliseconds for the agent's answer; handlers have 5 s to answer it.
M.PATIENCE = 7000
--- The same for the program.
M.PROGRAM = 20000

--- One request to the agent: `done(answer, why)`, one of them nil.
function M.agent(request, done)
  local timer = vim.uv.new_timer()
  local connection
  local over = false
  local function finish(answer, why)
    if over then
      return
    end
    over = true
    timer:close()
    connection.close()
    vim.schedule(function()
      done(answer, why)
    end)
  end
  connection = socket.connect(paths.socket(), {
    open = function()
      connection.write(request .. '\n')
    end,
    line = function(line)
      local ok, answer = pcall(vim.json.decode, line, { luanil = { object = true, array = true } })
      if not ok or type(answer) ~= 'table' then
        finish(nil, 'the agent answered what is no answer')
      elseif answer.ok == false then
        finish(nil, tostring(answer.error))
      else
        finish(answer)
      end
    end,
    closed = function(why)
      finish(nil, 'no agent: ' .. why)
    end,
  })
  timer:start(M.PATIENCE, 0, function()
    finish(nil, 'the agent does not answer')
  end)
end

--- How the agent is.
function M.status(done)
  M.agent('{"_status":true}', function(answer, why)
    done(answer and answer.agent, why)
  end)
end

--- What waits for a person.
function M.questions(done)
  M.agent('{"_questions": true}', function(answer, why)
    done(answer and answer.questions, why)
  end)
end

--- Answer one of them.
function M.answer(id, choice, reason, done)
  local given = { run = id, choice = choice, via = 'neovim' }
  if reason and reason ~= '' then
    given.reason = reason
  end
  M.agent('{"_answer": ' .. vim.json.encode(given) .. '}', done)
end

--- The newest events of the mesh, oldest first; at most `n`.
function M.events(since, n, done)
  local program = paths.program()
  if not program then
    done(nil, 'the program opsmesh is not on PATH: set the option command')
    return
  end
  local lines, rest = {}, ''
  local function take(_, chunk)
    if not chunk then
      return
    end
    local parts = vim.split(rest .. chunk, '\n', { plain = true })
    rest = table.remove(parts)
    vim.list_extend(lines, parts, math.max(1, #parts - n + 1))
    while #lines > n do
      table.remove(lines, 1)
    end
  end
  local argv = { program, 'tail', '--since', since, '--no-follow', '--json' }
  local ok, why = pcall(
    vim.system,
    argv,
    { stdout = take, text = true, timeout = M.PROGRAM },
    vim.schedule_wrap(function(ran)
      if ran.code ~= 0 and #lines == 0 then
        local said = vim.trim(ran.stderr or ''):match('[^\n]*$')
        done(nil, said ~= '' and said or ('opsmesh tail ended with %d'):format(ran.code))
        return
      end
      local events = {}
      for _, line in ipairs(lines) do
        local good, event = pcall(vim.json.decode, line, { luanil = { object = true } })
        if good and type(event) == 'table' then
          events[#events + 1] = event
        end
      end
      done(events)
    end)
  )
  if not ok then
    done(nil, tostring(why))
  end
end

return M
