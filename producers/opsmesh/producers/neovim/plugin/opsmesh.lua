-- Where Neovim finds opsmesh: autocommands and commands, and nothing else is loaded before one of
-- them is needed. Written by `opsmesh install neovim`, or taken from its folder by a plugin manager.

if vim.g.loaded_opsmesh or vim.fn.has('nvim-0.10') == 0 then
  return
end
vim.g.loaded_opsmesh = 1

require('opsmesh.hooks').install()
