"""Neovim: a plugin in Lua that speaks to the agent's socket, and where it is put.

This folder is the plugin itself: `plugin/`, `lua/` and `doc/` are what Neovim looks for in one.
"""

from __future__ import annotations

from opsmesh.producers.neovim.wiring import Neovim

__all__ = ["Neovim"]
