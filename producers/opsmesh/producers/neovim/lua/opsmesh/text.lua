-- Text on its way into an event: valid UTF-8, and no longer than it may be.

local M = {}

--- Bytes of an event's message, and of the end of a program's output.
M.MESSAGE, M.TAIL = 2000, 8 * 1024

--- The length of the character at `i`, nil where the bytes are none.
local function character(text, i)
  local first, second = text:byte(i, i + 1)
  local length = first < 0x80 and 1
    or first >= 0xC2 and first < 0xE0 and 2
    or first >= 0xE0 and first < 0xF0 and 3
    or first >= 0xF0 and first < 0xF5 and 4
  if not length or i + length - 1 > #text then
    return nil
  end
  for j = i + 1, i + length - 1 do
    local byte = text:byte(j)
    if byte < 0x80 or byte > 0xBF then
      return nil
    end
  end
  local wrong = (first == 0xE0 and second < 0xA0) -- overlong
    or (first == 0xED and second > 0x9F) -- surrogates
    or (first == 0xF0 and second < 0x90) -- overlong
    or (first == 0xF4 and second > 0x8F) -- beyond Unicode
  return not wrong and length or nil
end

--- Bytes that are no UTF-8 become U+FFFD: with one of them a line would be no JSON.
function M.valid(text)
  if not text:find('[\128-\255]') then
    return text
  end
  local parts, from, i = {}, 1, 1
  while i <= #text do
    local length = character(text, i)
    if not length then
      parts[#parts + 1] = text:sub(from, i - 1) .. '\239\191\189'
      from = i + 1
    end
    i = i + (length or 1)
  end
  parts[#parts + 1] = text:sub(from)
  return table.concat(parts)
end

--- The beginning of a text.
function M.head(text, bytes)
  bytes = bytes or M.MESSAGE
  if #text <= bytes then
    return text
  end
  while bytes > 0 and (text:byte(bytes + 1) or 0) >= 0x80 and text:byte(bytes + 1) < 0xC0 do
    bytes = bytes - 1
  end
  return text:sub(1, bytes)
end

--- The end of a text.
function M.tail(text, bytes)
  bytes = bytes or M.TAIL
  if #text <= bytes then
    return text
  end
  local from = #text - bytes + 1
  while from <= #text and text:byte(from) >= 0x80 and text:byte(from) < 0xC0 do
    from = from + 1
  end
  return text:sub(from)
end

--- Escape sequences of a terminal, and what else is not to be read, taken out.
function M.plain(text)
  text = text:gsub('\27%[[0-?]*[ -/]*[@-~]', ''):gsub('\27%][^\7\27]*[\7\27]\\?', '')
  return (text:gsub('\r\n', '\n'):gsub('\r', '\n'):gsub('[%z\1-\8\11-\31\127]', ''))
end

--- A value with every string in it made valid.
function M.clean(value)
  if type(value) == 'string' then
    return M.valid(value)
  end
  if type(value) ~= 'table' then
    return value
  end
  local copy = vim.empty_dict()
  if vim.islist(value) and next(value) ~= nil then
    copy = {}
  end
  for key, one in pairs(value) do
    copy[type(key) == 'string' and M.valid(key) or key] = M.clean(one)
  end
  return copy
end

return M
