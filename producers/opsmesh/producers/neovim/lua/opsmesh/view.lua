-- The window of `:OpsMesh`. Asks the mesh in the background, and is drawn anew with each answer.

local ask = require('opsmesh.ask')
local event = require('opsmesh.event')
local hooks = require('opsmesh.hooks')
local outbox = require('opsmesh.outbox')
local page = require('opsmesh.page')
local say = require('opsmesh.say')
local session = require('opsmesh.session')

local M = {}

--- How far back events are shown.
local SINCE = '1h'

local namespace = vim.api.nvim_create_namespace('opsmesh')
local buf, win
local facts, shown = {}, {}
--- The questions that were last seen, for completion.
M.questions = {}

local function open()
  return win and vim.api.nvim_win_is_valid(win) and buf and vim.api.nvim_buf_is_valid(buf)
end

local function size(lines)
  local width = 60
  for _, line in ipairs(lines) do
    width = math.max(width, vim.api.nvim_strwidth(line) + 2)
  end
  width = math.max(20, math.min(width, vim.o.columns - 4))
  local height = math.max(5, math.min(#lines, vim.o.lines - 6))
  return {
    relative = 'editor',
    width = width,
    height = height,
    row = math.max(0, math.floor((vim.o.lines - height) / 2) - 1),
    col = math.max(0, math.floor((vim.o.columns - width) / 2)),
  }
end

local function draw()
  if not open() then
    return
  end
  facts.session, facts.told, facts.waiting = session.own(), outbox.told, outbox.waiting()
  facts.failures, facts.own = hooks.failures, event.recent
  facts.tests = package.loaded['opsmesh.testing'] and require('opsmesh.testing').running()
  local lines, marks
  lines, marks, shown = page.draw(facts)
  vim.bo[buf].modifiable = true
  vim.api.nvim_buf_set_lines(buf, 0, -1, false, lines)
  vim.bo[buf].modifiable = false
  vim.api.nvim_buf_clear_namespace(buf, namespace, 0, -1)
  for _, mark in ipairs(marks) do
    local line, from, to, group = unpack(mark)
    vim.api.nvim_buf_set_extmark(buf, namespace, line - 1, from, {
      end_col = math.min(to, #lines[line]),
      hl_group = group,
    })
  end
  vim.api.nvim_win_set_config(win, size(lines))
end

local guarded = hooks.guard(draw)

local function look_for_questions()
  ask.questions(function(questions, why)
    facts.questions, facts.questions_why = questions, why
    M.questions = questions or M.questions
    guarded()
  end)
end

--- Ask everything anew.
function M.refresh()
  ask.status(function(agent, why)
    facts.agent, facts.agent_why = agent, why
    guarded()
  end)
  look_for_questions()
  ask.events(SINCE, page.EVENTS, function(events, why)
    facts.events, facts.events_why = events, why
    guarded()
  end)
  guarded()
end

--- Answer a question by its id, or the start of it.
function M.answer(id, choice, reason)
  local function send(whole)
    ask.answer(whole, choice, reason, function(answer, why)
      if answer then
        say(('answered %s: %s'):format(whole:sub(1, 8), choice))
      else
        say(('%s is not answered: %s'):format(whole:sub(1, 8), why), vim.log.levels.ERROR)
      end
      if open() then
        M.refresh()
      end
    end)
  end
  ask.questions(function(questions, why)
    if not questions then
      say(why, vim.log.levels.ERROR)
      return
    end
    M.questions = questions
    local found = vim.tbl_filter(function(one)
      return vim.startswith(tostring(one.id), id)
    end, questions)
    if #found ~= 1 then
      local none = 'nothing that begins with %s waits: :OpsMesh shows what does'
      local many = '%s begins several ids: type more of it'
      say((#found == 0 and none or many):format(id), vim.log.levels.ERROR)
    elseif not vim.tbl_contains(found[1].choices or {}, choice) then
      local choices = table.concat(found[1].choices or {}, ', ')
      say(('%s takes %s'):format(id, choices), vim.log.levels.ERROR)
    elseif choice == 'approve' and found[1].schema then
      local more = 'a value belongs to that yes: opsmesh approve %s --field name=value'
      say(more:format(tostring(found[1].id):sub(1, 8)), vim.log.levels.WARN)
    else
      send(tostring(found[1].id))
    end
  end)
end

local function under_cursor()
  local one = shown[vim.api.nvim_win_get_cursor(win)[1]]
  if not one then
    say('the cursor is on no question')
  end
  return one
end

local function choose(one, choice)
  local prompt = ('%s %s? Comment (Esc: not now): '):format(choice, one.profile or '')
  vim.ui.input({ prompt = prompt }, function(reason)
    if reason then
      M.answer(tostring(one.id), choice, reason)
    end
  end)
end

local function keys()
  local function map(key, fn, desc)
    vim.keymap.set('n', key, fn, { buffer = buf, nowait = true, desc = desc })
  end
  local function close()
    if win and vim.api.nvim_win_is_valid(win) then
      vim.api.nvim_win_close(win, true)
    end
  end
  map('q', close, 'close')
  map('<Esc>', close, 'close')
  map('r', M.refresh, 'refresh')
  for key, choice in pairs({ a = 'approve', d = 'deny' }) do
    map(key, function()
      local one = under_cursor()
      if one and vim.tbl_contains(one.choices or {}, choice) then
        choose(one, choice)
      elseif one then
        say('it takes ' .. table.concat(one.choices or {}, ', '))
      end
    end, choice)
  end
  map('<CR>', function()
    local one = under_cursor()
    if one then
      vim.ui.select(one.choices or {}, { prompt = one.prompt or 'opsmesh' }, function(choice)
        if choice then
          choose(one, choice)
        end
      end)
    end
  end, 'answer')
end

--- Show the window.
function M.show()
  if open() then
    vim.api.nvim_set_current_win(win)
    M.refresh()
    return
  end
  facts = {}
  buf = vim.api.nvim_create_buf(false, true)
  vim.bo[buf].bufhidden = 'wipe'
  vim.bo[buf].filetype = 'opsmesh'
  local config = vim.tbl_extend('force', size({}), {
    style = 'minimal',
    border = 'rounded',
    title = ' opsmesh ',
    title_pos = 'center',
  })
  win = vim.api.nvim_open_win(buf, true, config)
  vim.wo[win].wrap = false
  vim.wo[win].cursorline = true
  keys()
  M.refresh()
end

return M
