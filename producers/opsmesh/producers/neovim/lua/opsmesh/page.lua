-- What `:OpsMesh` shows, as lines and highlights. Pure: facts in, lines out.

local text = require('opsmesh.text')

local M = {}

--- Events that are shown.
M.EVENTS = 15

local SEVERITY = {
  info = 'DiagnosticInfo',
  warn = 'DiagnosticWarn',
  error = 'DiagnosticError',
  critical = 'DiagnosticError',
}

--- Local time of an envelope's time.
local function clock(utc)
  local y, mo, d, h, mi, s = tostring(utc):match('^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)')
  if not y then
    return '--:--:--'
  end
  local parts = { year = y, month = mo, day = d, hour = h, min = mi, sec = s, isdst = false }
  local as_local = os.time(parts) -- the parts are UTC: add how far apart the two are
  local offset = os.difftime(as_local, os.time(os.date('!*t', as_local) --[[@as osdateparam]]))
  return os.date('%H:%M:%S', as_local + offset)
end

local function one_line(value)
  return (text.valid(text.plain(tostring(value))):gsub('%s+', ' '))
end

--- Of a payload what a person looks for first.
local function gist(payload)
  if type(payload) ~= 'table' then
    return ''
  end
  local parts = {}
  local where = payload.path and vim.fn.fnamemodify(payload.path, ':t')
  if where then
    parts[1] = payload.line and ('%s:%s'):format(where, payload.line) or where
  end
  for _, name in ipairs({ 'unit', 'profile', 'nodeid', 'command', 'message', 'exit_code', 'server' }) do
    local value = payload[name]
    if type(value) == 'string' or type(value) == 'number' then
      parts[#parts + 1] = name == 'exit_code' and 'exit ' .. value or tostring(value)
    end
  end
  if #parts == 0 then
    local names = vim.tbl_keys(payload)
    table.sort(names)
    for _, name in ipairs(names) do
      local value = payload[name]
      if #parts < 3 and (type(value) == 'string' or type(value) == 'number') then
        parts[#parts + 1] = ('%s=%s'):format(name, value)
      end
    end
  end
  return one_line(table.concat(parts, '  '))
end

--- The lines; `facts`: { session, told, waiting, failures, agent, agent_why, questions,
--- questions_why, events, events_why, tests }. What is nil is still asked for.
--- Gives lines, highlights { line, from, to, group }, and what stands on which line.
function M.draw(facts)
  local lines, marks, at = {}, {}, {}
  local function add(line, group)
    line = line:gsub('%c', ' ') -- a line of a buffer has no end in it
    lines[#lines + 1] = line
    if group then
      marks[#marks + 1] = { #lines, 0, #line, group }
    end
  end
  local function section(title)
    add('')
    add(title, 'Title')
  end

  add('opsmesh    r refresh   ⏎ answer   a approve   d deny   q close', 'Comment')
  add('')
  if facts.agent then
    local agent = facts.agent
    local there = agent.broker == 'open'
    local broker = there and 'the broker is there'
      or ('the broker %s: events wait in the spool'):format(agent.broker == 'hangs' and 'hangs' or 'is away')
    add(
      ('Mesh       the agent is there (pid %s), %s'):format(tostring(agent.pid), broker),
      there and 'DiagnosticOk' or 'DiagnosticWarn'
    )
  elseif facts.agent_why then
    add('Mesh       ' .. one_line(facts.agent_why), 'DiagnosticWarn')
    add('           events are kept in the spool until it is back: opsmesh up --detach')
  else
    add('Mesh       asking …', 'Comment')
  end
  add('Session    ' .. one_line(facts.session))
  local told = facts.told
  add(
    ('Events     %d told, %d acknowledged, %d in the spool, %d waiting'):format(
      told.events,
      told.sent,
      told.spooled,
      facts.waiting
    )
  )
  if told.dropped + told.refused + facts.failures.count > 0 then
    local why = told.error or facts.failures.last or ''
    add(
      ('           %d dropped, %d refused, %d failures of the plugin: %s'):format(
        told.dropped,
        told.refused,
        facts.failures.count,
        one_line(why)
      ),
      'DiagnosticWarn'
    )
  end
  if facts.tests then
    add('Tests      running: ' .. one_line(facts.tests))
  end

  local questions = facts.questions
  section(questions and ('Waiting for you (%d)'):format(#questions) or 'Waiting for you')
  if questions and #questions == 0 then
    add('  nothing', 'Comment')
  elseif questions then
    for _, one in ipairs(questions) do
      local ends = one.expires
          and ('   until %s, otherwise %s'):format(clock(one.expires), one_line(one.otherwise or '?'))
        or ''
      add(
        ('  %s  %s  %s%s'):format(
          tostring(one.id):sub(1, 8),
          one_line(one.profile or ''),
          one_line(one.prompt or ''),
          ends
        )
      )
      at[#lines] = one
      marks[#marks + 1] = { #lines, 2, 10, 'Identifier' }
      add('            ' .. table.concat(one.choices or {}, ' · '), 'Comment')
      at[#lines] = one
    end
  else
    add('  ' .. (facts.questions_why and one_line(facts.questions_why) or 'asking …'), 'Comment')
  end

  section('Recent events')
  if facts.events and #facts.events == 0 then
    add('  none in the last hour', 'Comment')
  end
  local events = facts.events or facts.own or {}
  if not facts.events then
    local why = facts.events_why and one_line(facts.events_why) or 'asking …'
    add('  of this Neovim alone: ' .. why, 'Comment')
  end
  for i = #events, math.max(1, #events - M.EVENTS + 1), -1 do
    local one = events[i]
    local time, severity = clock(one.ts_utc or one.time), one.severity or ''
    add(('  %s  %-8s  %-28s  %s'):format(time, severity, one_line(one.topic), gist(one.payload)))
    marks[#marks + 1] = { #lines, 12, 12 + #severity, SEVERITY[severity] or 'Normal' }
  end
  return lines, marks, at
end

return M
