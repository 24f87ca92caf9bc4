"""The tools of a server, as it listed them last, and which of them may be called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import Any, Final

from mcp_types import Tool

from opsmesh.handlers.errors import CallFailed
from opsmesh.schemas.nearest import did_you_mean

#: Pages, and tools, of a list that are read: a page has the length of a message.
MAX_PAGES: Final = 10
MAX_TOOLS: Final = 1000
#: Names of tools that an error lists.
NAMED: Final = 20

#: `Client.list_tools` of the SDK.
Ask = Callable[..., Awaitable[Any]]


class Tools:
    """What one server has. `allowed` are the patterns of its settings; None: all."""

    def __init__(self, server: str, allowed: list[str] | None) -> None:
        #: The server has said that its list is another one now.
        self.stale = False
        self._server = server
        self._allowed = allowed
        self._known: dict[str, Tool] = {}

    async def read(self, ask: Ask) -> None:
        """Ask the server anew."""
        self.stale = False
        found: dict[str, Tool] = {}
        cursor: str | None = None
        try:
            for _ in range(MAX_PAGES):
                page = await ask(cursor=cursor, cache_mode="refresh")
                for tool in page.tools:
                    if len(found) < MAX_TOOLS:
                        found[tool.name] = tool
                cursor = page.next_cursor
                if cursor is None:
                    break
        except BaseException:
            self.stale = True
            raise
        self._known = found

    async def all(self, ask: Ask) -> list[Tool]:
        """Those that may be called."""
        if self.stale:
            await self.read(ask)
        return [tool for tool in self._known.values() if self._may_be_called(tool.name)]

    async def find(self, name: str, ask: Ask) -> Tool:
        """The tool of this name; CallFailed `unknown_tool` when there is none to be called."""
        if not self._may_be_called(name):
            where = f"mcp_servers.{self._server}.tools"
            raise CallFailed(
                "unknown_tool", f"tool {name!r} is not among the tools that {where} allows"
            )
        if self.stale or name not in self._known:  # it need not have said that it has a new one
            await self.read(ask)
        if name not in self._known:
            near = did_you_mean(name, self._known)
            known = near or f"; it has {', '.join(sorted(self._known)[:NAMED]) or 'none'}"
            raise CallFailed("unknown_tool", f"server {self._server!r} has no tool {name!r}{known}")
        return self._known[name]

    def _may_be_called(self, name: str) -> bool:
        return self._allowed is None or any(fnmatchcase(name, one) for one in self._allowed)
