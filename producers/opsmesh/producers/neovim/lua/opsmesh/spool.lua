-- The spool, for when nobody listens: docs/architecture.md of opsmesh. A file is there whole or not
-- at all, and its name gives its place in the order. Written in the background; may run in the loop.

local bit = require('bit')
local uv = vim.uv

local M = {}

--- The spool's unit of measure, its size unless `.limits` says otherwise, and what then happens.
local BLOCK, MAX_BYTES, POLICY = 4096, 2 ^ 30, 'refuse'
local POLICIES = { refuse = true, drop_oldest = true, drop_newest = true }

local crc_table

--- CRC-32 as zlib has it, eight hex digits.
function M.crc32(text)
  if not crc_table then
    crc_table = {}
    for i = 0, 255 do
      local c = i
      for _ = 1, 8 do
        c = bit.band(c, 1) == 1 and bit.bxor(bit.rshift(c, 1), 0xEDB88320) or bit.rshift(c, 1)
      end
      crc_table[i] = c
    end
  end
  local crc = -1
  for i = 1, #text do
    crc = bit.bxor(bit.rshift(crc, 8), crc_table[bit.band(bit.bxor(crc, text:byte(i)), 0xFF)])
  end
  return bit.tohex(bit.bnot(crc), 8)
end

local function record(line)
  return M.crc32(line) .. ' ' .. line .. '\n'
end

local function read(path)
  local file = uv.fs_open(path, 'r', 0)
  if not file then
    return ''
  end
  local text = uv.fs_read(file, 100, 0)
  uv.fs_close(file)
  return text or ''
end

--- Bytes that it may hold, and what happens when it is full.
function M.limits(folder)
  local size, policy = read(folder .. '/.limits'):match('^(%d+) (%S+)')
  if size and POLICIES[policy] and tonumber(size) > 0 then
    return tonumber(size), policy
  end
  return MAX_BYTES, POLICY
end

local function make(folder)
  if uv.fs_stat(folder) then
    return
  end
  local parent = folder:match('^(.+)/[^/]*$')
  if parent then
    make(parent)
  end
  uv.fs_mkdir(folder, tonumber('700', 8))
end

local last_sec, last_nsec, written = 0, 0, 0

--- Names of one process always grow, also when the clock is set back.
local function next_name()
  local sec, nsec = uv.gettimeofday()
  nsec = nsec * 1000
  if sec < last_sec or (sec == last_sec and nsec <= last_nsec) then
    sec, nsec = last_sec, last_nsec + 1
    if nsec > 999999999 then
      sec, nsec = sec + 1, 0
    end
  end
  last_sec, last_nsec, written = sec, nsec, written + 1
  return ('%011d%09d-%d-%d.spool'):format(sec, nsec, uv.os_getpid(), written)
end

--- Run steps one after the other, each in the background.
local function stepwise(steps, done)
  local co
  local function step(fn, ...)
    local args, n = { ... }, select('#', ...)
    args[n + 1] = function(err, result)
      coroutine.resume(co, result, err)
    end
    fn(unpack(args, 1, n + 1))
    return coroutine.yield()
  end
  co = coroutine.create(function()
    done(steps(step))
  end)
  coroutine.resume(co)
end

local function private(step, path, flags, data, sync)
  local file, err = step(uv.fs_open, path, flags, tonumber('600', 8))
  if not file then
    return nil, err
  end
  local ok, why = step(uv.fs_write, file, data, -1)
  if ok and ok < #data then
    ok, why = nil, 'the disk is full'
  end
  if ok and sync then
    ok, why = step(uv.fs_fsync, file)
  end
  step(uv.fs_close, file)
  return ok, why
end

local function sync_folder(step, folder)
  local file = step(uv.fs_open, folder, 'r', 0)
  if file then
    step(uv.fs_fsync, file)
    step(uv.fs_close, file)
  end
end

--- What nobody keeps is in the log of losses, for the agent to tell.
local function count_lost(step, folder, name, lines, policy)
  local size, now = 0, os.date('!%Y-%m-%dT%H:%M:%S') .. '.000000Z'
  for _, line in ipairs(lines) do
    size = size + #line
  end
  local loss = { source = 'neovim', events = #lines, bytes = size, reasons = { policy } }
  loss.from_time, loss.to_time = now, now
  local entry = vim.json.encode({ name = name, losses = { loss } })
  return private(step, folder .. '/dropped.log', 'a', '\n' .. record(entry), true)
end

local function put(step, folder, lines)
  make(folder)
  local name = next_name()
  local parts = {}
  for i, line in ipairs(lines) do
    parts[i] = record(line)
  end
  parts[#parts + 1] = record('=' .. #lines)
  local data = table.concat(parts)
  local blocks = math.ceil(#data / BLOCK)
  local gauge = uv.fs_stat(folder .. '/.used')
  local limit, policy = M.limits(folder)
  local used = (gauge and gauge.size or 0) * BLOCK
  if used + blocks * BLOCK > limit and policy ~= 'drop_oldest' then
    if policy == 'drop_newest' and count_lost(step, folder, name, lines, policy) then
      return 'dropped'
    end
    return nil, ('the spool is full: %d bytes of spool.max_bytes %d'):format(used, limit)
  end
  return name, data, blocks
end

--- Put events into one new file. `done(how, why)`: how is 'spooled', 'dropped' (and counted), or nil.
function M.write(folder, lines, done)
  stepwise(function(step)
    local name, data, blocks = put(step, folder, lines)
    if not blocks then
      return name, data
    end
    local new = folder .. '/.' .. name
    local ok, why = private(step, new, 'wx', data, true)
    if ok then
      ok, why = step(uv.fs_rename, new, folder .. '/' .. name)
    end
    if not ok then
      step(uv.fs_unlink, new)
      return nil, why
    end
    sync_folder(step, folder)
    private(step, folder .. '/.used', 'a', ('\0'):rep(blocks), false)
    return 'spooled'
  end, done)
end

--- The same at once, for a process that ends: it is there when this returns, and survives the
--- process. `synced()` is called when it would survive a power cut too.
function M.write_now(folder, lines, synced)
  local function at_once(fn, ...)
    return fn(...)
  end
  local name, data, blocks = put(at_once, folder, lines)
  if not blocks then
    return name, data
  end
  local new, path = folder .. '/.' .. name, folder .. '/' .. name
  local ok, why = private(at_once, new, 'wx', data, false)
  if ok then
    ok, why = uv.fs_rename(new, path)
  end
  if not ok then
    uv.fs_unlink(new)
    return nil, why
  end
  private(at_once, folder .. '/.used', 'a', ('\0'):rep(blocks), false)
  stepwise(function(step)
    sync_folder(step, path)
    sync_folder(step, folder)
  end, synced)
  return 'spooled'
end

return M
