"""What every call of a tool goes through: a place among those under way, a time limit, an event on
record, and errors that a client can do something about.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from opsmesh.handlers.checks.allowed import NotOnTheList
from opsmesh.handlers.mcp_serve import answers
from opsmesh.handlers.mcp_serve.answers import NotAllowed
from opsmesh.handlers.mcp_serve.records import Outcome, Records

R = TypeVar("R")
Tool = Callable[..., Awaitable[Any]]

#: Calls that are under way at once; the next ones wait.
AT_ONCE: Final = 16
#: Seconds that a call may take, unless its tool says otherwise.
TIMEOUT_S: Final = 60.0

log = structlog.get_logger()


class Calls:
    """Registers tools, and runs them."""

    def __init__(self, server: MCPServer, records: Records) -> None:
        self._server = server
        self.records = records
        self._places = asyncio.Semaphore(AT_ONCE)

    def add(
        self,
        tool: Tool,
        *,
        title: str,
        acts: bool = False,
        destructive: bool = False,
        idempotent: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Offer the tool; its docstring is its description. One that `acts` is on record before."""
        about = ToolAnnotations(
            title=title,
            read_only_hint=not acts,
            destructive_hint=destructive,
            idempotent_hint=idempotent or not acts,
            open_world_hint=False,
        )
        self._server.add_tool(
            self._guarded(tool, acts=acts, timeout_s=timeout_s),
            name=tool.__name__,
            title=title,
            description=" ".join((tool.__doc__ or "").split()) + answers.MARKED,
            annotations=about,
            structured_output=True,
        )

    def _guarded(self, tool: Tool, *, acts: bool, timeout_s: float) -> Tool:
        name = tool.__name__

        @functools.wraps(tool)
        async def guarded(**given: Any) -> Any:
            ctx = given["ctx"]
            asked = {key: value for key, value in given.items() if key != "ctx"}
            facts: dict[str, Any] = {"client": client(ctx), "arguments": asked}
            began = time.monotonic()
            outcome: Outcome = "cancelled"
            said: str | None = None
            cause: str | None = None
            try:
                if acts:
                    cause = await self.records.sure(name, **facts, outcome="called")
                async with self._places, asyncio.timeout(timeout_s):
                    result = await tool(**given)
                outcome = "ok"
                return result
            except Exception as error:
                outcome = "refused" if isinstance(error, NotAllowed | NotOnTheList) else "failed"
                told = error if isinstance(error, ToolError) else answers.refusal(error)
                said = str(told or f"{type(error).__name__}: {error}")
                if told is None:
                    log.exception("tool.failed", tool=name)
                    raise
                raise told from None
            finally:
                took = (time.monotonic() - began) * 1e3
                self.records.tell(
                    name, **facts, outcome=outcome, error=said, duration_ms=took, cause=cause
                )

        return guarded


def client(ctx: Context) -> tuple[str, str]:
    """What the client calls itself, and its version."""
    params = ctx.session.client_params
    if params is None:
        return "", ""
    return params.client_info.name, params.client_info.version
