-- An event: the envelope around a payload, and its number. What the agent knows better (host, the
-- topic's severity) is left to it.

local config = require('opsmesh.config')
local outbox = require('opsmesh.outbox')
local session = require('opsmesh.session')
local text = require('opsmesh.text')

local M = {}

local uv = vim.uv
local bit = require('bit')

--- Events that are kept to be shown.
M.KEPT = 50
--- The newest events of this Neovim, the newest last: { time, topic, payload, severity, id }.
M.recent = {}

local last_ms, count = 0, 0

--- A UUIDv7; those of one process grow.
function M.uuid7()
  local sec, usec = uv.gettimeofday()
  local ms = sec * 1000 + math.floor(usec / 1000)
  if ms <= last_ms then
    count = count + 1
    if count > 0xFFF then
      last_ms, count = last_ms + 1, 0
    end
  else
    last_ms, count = ms, bit.band(uv.hrtime() % 1024, 0x3FF)
  end
  local a, b, c, d, e, f, g, h = uv.random(8):byte(1, 8)
  local hex = ('%012x'):format(last_ms)
  return ('%s-%s-7%03x-%02x%02x-%02x%02x%02x%02x%02x%02x'):format(
    hex:sub(1, 8),
    hex:sub(9),
    count,
    bit.bor(0x80, bit.band(a, 0x3F)),
    b,
    c,
    d,
    e,
    f,
    g,
    h
  )
end

--- The order of a payload's fields; others come after them, by name. People read the first ones.
local ORDER = {
  'path', 'command', 'nodeid', 'message', 'count', 'line', 'column', 'code', 'server', 'method',
  'inferred', 'failed', 'exit_code', 'duration_ms', 'language', 'lines', 'bytes', 'editor',
  'output_tail',
} -- stylua: ignore
local KNOWN = {}
for _, name in ipairs(ORDER) do
  KNOWN[name] = true
end

--- A string or a number as JSON; most are written down as they are.
local function json(value)
  if type(value) == 'string' then
    if value:find('[%c"\\\127-\255]') then
      return vim.json.encode(text.valid(value))
    end
    return '"' .. value .. '"'
  end
  return vim.json.encode(type(value) == 'table' and text.clean(value) or value)
end

--- Pairs of name and value as a JSON object, in their order; what is nil is left out.
local function object(fields)
  local parts = {}
  for i = 1, #fields do
    local name, value = fields[i][1], fields[i][2]
    if value ~= nil then
      parts[#parts + 1] = json(name) .. ':' .. (fields[i].ready or json(value))
    end
  end
  return '{' .. table.concat(parts, ',') .. '}'
end

local function ordered(payload)
  local fields, others = {}, {}
  for _, name in ipairs(ORDER) do
    if payload[name] ~= nil then
      fields[#fields + 1] = { name, payload[name] }
    end
  end
  for name in pairs(payload) do
    if not KNOWN[name] then
      others[#others + 1] = tostring(name)
    end
  end
  table.sort(others)
  for _, name in ipairs(others) do
    fields[#fields + 1] = { name, payload[name] }
  end
  return object(fields)
end

local boot_id, seq = nil, 0

local function now()
  local sec, usec = uv.gettimeofday()
  return os.date('!%Y-%m-%dT%H:%M:%S', sec) .. ('.%06dZ'):format(usec)
end

--- Tell an event; gives its id. `about`: what it concerns (`path`, or a folder as `path`), and
--- fields of the envelope. Safe in main context only.
function M.emit(topic, payload, about)
  about = about or {}
  if not config.get().enabled then
    return nil
  end
  boot_id = boot_id or M.uuid7()
  seq = seq + 1
  local id, time = M.uuid7(), now()
  outbox.add(
    id,
    object({
      { 'topic', topic },
      { 'ts_utc', time },
      { 'source', 'neovim' },
      { 'component', about.component or 'neovim' },
      { 'severity', about.severity },
      { 'session_id', session.own() },
      { 'workspace', about.workspace or session.workspace(about.path or uv.cwd() or '') },
      { 'payload', true, ready = ordered(payload) },
      { 'exit_code', about.exit_code },
      { 'duration_ms', about.duration_ms },
      { 'hops', about.hops },
      { 'id', id },
      { 'schema_version', '1.0' },
      { 'seq', seq },
      { 'boot_id', boot_id },
      { '_reply', true },
    })
  )
  M.recent[#M.recent + 1] =
    { time = time, topic = topic, payload = payload, severity = about.severity, id = id }
  if #M.recent > M.KEPT then
    table.remove(M.recent, 1)
  end
  return id
end

--- The file of a buffer, nil for what is none, or is ignored.
function M.file(buf)
  if not vim.api.nvim_buf_is_loaded(buf) or vim.bo[buf].buftype ~= '' then
    return nil
  end
  return M.named(vim.api.nvim_buf_get_name(buf))
end

--- The same for a name.
function M.named(name)
  if name == '' or name:find('^%a[%w+.-]*://') or config.ignores(name) then
    return nil
  end
  return name
end

return M
