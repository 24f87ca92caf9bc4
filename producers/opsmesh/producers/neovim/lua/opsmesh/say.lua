-- What the user is told, by `vim.notify`. In one line: a longer one would ask for a key.

return function(message, level)
  local room = math.max(20, vim.o.columns - 15)
  local line = 'opsmesh: ' .. message:gsub('%s+', ' ')
  if vim.fn.strchars(line) > room then
    line = vim.fn.strcharpart(line, 0, room - 1) .. '…'
  end
  vim.notify(line, level or vim.log.levels.INFO)
end
