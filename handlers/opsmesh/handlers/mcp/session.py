"""One session with one server: opened, used by many steps at once, and ended by its owner.

The one rule: what the SDK opens in a task it must close in the same one (its task groups and cancel
scopes are bound to it). So a task of its own, the owner, holds the session open, and steps only
send requests, each in its own task. What a step starts it ends: a request that is cancelled is
cancelled at the server too, and the session goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog
from anyio import BrokenResourceError, ClosedResourceError
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    ElicitResult,
    ErrorData,
    Implementation,
    InputRequiredResult,
    Tool,
    ToolListChangedNotification,
)
from pydantic import ValidationError

from opsmesh.handlers.errors import CallFailed, InputWanted, Unstartable
from opsmesh.handlers.mcp import answer, checks, elicit
from opsmesh.handlers.mcp.answer import Answer
from opsmesh.handlers.mcp.http import http_transport
from opsmesh.handlers.mcp.program import Program
from opsmesh.handlers.mcp.stdio import StdioTransport
from opsmesh.handlers.mcp.tools import Tools
from opsmesh.handlers.process import minimal_environment
from opsmesh.router.mcp_servers import McpServer

#: Seconds without a call after which a session is closed: a server takes memory.
IDLE_S: Final = 600.0
#: Seconds to answer a look, after a call that took too long; a server that does not hangs.
LOOK_S: Final = 5.0
#: Seconds for a session to close.
CLOSE_S: Final = 4.0
#: Requests of a server that are noted in a session.
MAX_REFUSED: Final = 100
#: Requests of ours to which a server asks something of us, and their names for people.
ASKED: Final = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}

#: How far a call is, of how much, and what the server says.
Progress = Callable[[float, float | None, str | None], Awaitable[None]]
#: The server's state of a call that waited for a person, and the replies by its keys.
Asked = tuple[str | None, Mapping[str, Mapping[str, Any]]]

log = structlog.get_logger()

# The SDK logs what a server sends, past our redactor; our errors tell what matters of it.
for _chatty in ("mcp.client", "mcp.shared", "httpx2"):
    logging.getLogger(_chatty).setLevel(logging.CRITICAL + 1)


class Session:
    """An open session; `open` makes one."""

    def __init__(self, name: str, spec: McpServer) -> None:
        self.name = name
        self.spec = spec
        self.answered = 0
        self._client: Client | None = None
        self._transport: StdioTransport | None = None
        self._owner: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._tools = Tools(name, spec.tools)
        self._under_way = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._used = time.monotonic()
        self._refused: list[str] = []
        self._reason = ""

    @classmethod
    async def open(cls, name: str, spec: McpServer, *, fill: Callable[[str], str]) -> Session:
        """A session that is ready; CallFailed `dead_server` when there is none within the server's
        time. `fill` gives the secrets for references in env and headers."""
        session = cls(name, spec)
        env, headers = await asyncio.to_thread(_filled, spec, fill)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ready.add_done_callback(_heard_of)  # who asked may be gone by then
        # In a context of its own: it is no part of the step that was the first to ask.
        session._owner = asyncio.create_task(
            session._own(ready, env, headers), name=f"mcp session {name}", context=Context()
        )
        try:
            async with asyncio.timeout(spec.timeout):
                await asyncio.shield(ready)
        except TimeoutError:
            reason = f"was not ready within {spec.timeout:g} s"
            if (transport := session._transport) is not None:
                reason += transport.last_words()
                transport.give_up(reason)
            await session.aclose()
            raise CallFailed("dead_server", f"server {name!r} {reason}") from None
        except BaseException:
            await session.aclose()
            raise
        return session

    @property
    def alive(self) -> bool:
        """Whether another call may be tried."""
        owner, transport = self._owner, self._transport
        if owner is None or owner.done() or self._closing.is_set():
            return False
        return transport is None or not transport.ended.is_set()

    @property
    def protocol(self) -> str:
        """The version of the protocol that both sides speak."""
        return self._open().protocol_version

    async def tools(self) -> list[Tool]:
        """The server's tools that its settings allow; read anew when it said they changed."""
        return await self._tools.all(self._open().list_tools)

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109 (the limit is the tool's)
        progress: Progress | None = None,
        ask: bool = False,
        asked: Asked | None = None,
    ) -> Answer:
        """What the tool answers; CallFailed says how it failed. Nothing that does not fit the
        tool's schemas is sent, or given back. With `ask`, a tool that wants something of a person
        raises InputWanted; `asked` is what came of that, to go on from."""
        self._under_way += 1
        self._quiet.clear()
        began = time.monotonic()
        refused = len(self._refused)
        try:
            async with asyncio.timeout(timeout):
                found = await self._tools.find(tool, self._open().list_tools)
                checks.arguments(found, arguments)
                result = await self._send(tool, dict(arguments), progress, ask, asked)
        except TimeoutError:
            self._look()
            late = f"{self._which(tool)} did not answer within {timeout:g} s"
            raise CallFailed("timeout", late) from None
        except MCPError as error:
            raise await self._failed(tool, error) from error
        except ValidationError as error:
            broken = f"{self._which(tool)}: its answer breaks the protocol"
            raise CallFailed("bad_result", broken) from error
        except (ExceptionGroup, OSError, ClosedResourceError, BrokenResourceError) as error:
            raise await self._gone() from error
        except RuntimeError as error:  # more rounds of questions than the SDK goes along with
            raise CallFailed("tool_error", f"{self._which(tool)}: {error}") from error
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._quiet.set()
            self._used = time.monotonic()
        self.answered += 1
        took = round((self._used - began) * 1e3, 3)
        given = answer.of(result, duration_ms=took, refused=tuple(self._refused[refused:]))
        checks.result(self._which(tool), found, given)
        return given

    async def _send(
        self,
        tool: str,
        arguments: dict[str, Any],
        progress: Progress | None,
        ask: bool,
        asked: Asked | None,
    ) -> Any:
        client = self._open()
        state, responses = (None, None) if asked is None else asked
        given: Any = None
        if responses is not None:
            given = {key: ElicitResult(**reply) for key, reply in responses.items()}
        callback: Any = progress
        if not ask:
            return await client.call_tool(
                tool,
                arguments,
                progress_callback=callback,
                input_responses=given,
                request_state=state,
            )
        result = await client.session.call_tool(
            tool,
            arguments,
            progress_callback=callback,
            input_responses=given,
            request_state=state,
            allow_input_required=True,
        )
        if not isinstance(result, InputRequiredResult):
            return result
        if (wanted := elicit.wanted(result)) is not None:
            raise InputWanted(wanted)
        raise CallFailed("tool_error", f"{self._which(tool)}: it asks what no person can answer")

    async def aclose(self) -> None:
        """End the session and its server, within seconds."""
        self._closing.set()
        owner = self._owner
        if owner is None:
            return
        _, late = await asyncio.wait([owner], timeout=CLOSE_S if self._client else 0)
        if late:
            owner.cancel()
            await asyncio.wait([owner], timeout=CLOSE_S)
        if self._looking is not None:
            self._looking.cancel()

    async def retire(self) -> None:
        """Close once nothing is under way any more: its settings are no longer in force."""
        await self._quiet.wait()
        await self.aclose()

    async def _own(
        self, ready: asyncio.Future[None], env: Mapping[str, str], headers: Mapping[str, str]
    ) -> None:
        """Open, hold open, close; all of it in this task."""
        try:
            async with Client(
                self._connect(env, headers),
                client_info=Implementation(name="opsmesh", version=version("opsmesh")),
                message_handler=self._heard,
                elicitation_callback=_never,  # that there is one is told to the server
                cache=None,
            ) as client:
                # Both by our own hand: the SDK would check an answer with patterns that may never
                # end, and it names in errors alone what it refuses.
                client.session.validate_tool_result = _not_by_the_sdk  # type: ignore[method-assign]
                client.session.dispatch_input_request = self._asked  # type: ignore[assignment, method-assign]
                self._client = client
                await self._tools.read(client.list_tools)
                self._used = time.monotonic()
                ready.set_result(None)
                log.info("mcp.opened", server=self.name, protocol=client.protocol_version)
                await self._until_over()
        except asyncio.CancelledError:
            self._reason = self._reason or "was closed"
            if not ready.done():
                ready.cancel()
            raise
        except BaseException as error:
            self._reason = self._why(error)
            if not ready.done():
                ready.set_exception(
                    CallFailed("dead_server", f"server {self.name!r} {self._reason}")
                )
            elif not isinstance(error, Exception | BaseExceptionGroup):
                raise
        finally:
            self._client = None
            log.info("mcp.closed", server=self.name, reason=self._reason or "idle, or asked to")

    def _connect(self, env: Mapping[str, str], headers: Mapping[str, str]) -> Any:
        spec = self.spec
        if spec.url is not None:
            return http_transport(spec.url, headers)
        cwd = Path.home() if spec.cwd is None else spec.cwd.expanduser()
        argv = (str(spec.command), *spec.args)
        program = Program.start(self.name, argv, env={**minimal_environment(), **env}, cwd=cwd)
        self._transport = StdioTransport(self.name, program)
        return self._transport

    async def _until_over(self) -> None:
        """Return when it is to be closed: asked to, dead, or without use for long."""
        ends = [asyncio.create_task(self._closing.wait())]
        if self._transport is not None:
            ends.append(asyncio.create_task(self._transport.ended.wait()))
        try:
            while True:
                rest = self._used + IDLE_S - time.monotonic()
                if self._under_way:
                    rest = IDLE_S
                if rest <= 0:
                    return
                done, _ = await asyncio.wait(
                    ends, timeout=rest, return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return
        finally:
            self._closing.set()  # nobody may begin a call any more
            for one in ends:
                one.cancel()

    async def _failed(self, tool: str, error: MCPError) -> CallFailed:
        if error.code == CONNECTION_CLOSED or not self.alive:
            return await self._gone()
        if error.code == INVALID_REQUEST and "session" in error.message.lower():
            self._closing.set()  # 404: the server has forgotten us; the next call opens anew
            return CallFailed("dead_server", f"server {self.name!r}: {checks.short(error.message)}")
        return CallFailed("tool_error", f"{self._which(tool)}: {checks.short(error.message)}")

    async def _gone(self) -> CallFailed:
        """The server is not there any more, or was given up."""
        transport, alone = self._transport, self._under_way == 1
        self._closing.set()
        if transport is None:
            why = self._reason or "cannot be reached any more"
            return CallFailed("dead_server", f"server {self.name!r} {why}")
        # whose answer it was is known when nobody else waited
        kind = "bad_result" if transport.too_large and alone else "dead_server"
        return CallFailed(kind, f"server {self.name!r} {transport.fault or 'was closed'}")

    def _look(self) -> None:
        """After a call that took too long: whether the server is there at all."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._still_there(), name=f"mcp look {self.name}")

    async def _still_there(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                await self._open().list_tools(cache_mode="bypass")
        except MCPError:  # it says no, so it is there
            pass
        except Exception:
            log.warning("mcp.hangs", server=self.name)
            if self._transport is not None:
                self._transport.give_up("hangs: it answered no call, and no question for its tools")
            self._closing.set()

    async def _heard(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self._tools.stale = True

    async def _asked(self, context: Any, request: Any) -> Any:
        """What a server asks of us in the middle of a call is refused: there is no model here, no
        folder for it, and no person who could answer while a step holds its place."""
        what = ASKED.get(request.method, str(request.method)[:40])
        if len(self._refused) < MAX_REFUSED:
            self._refused.append(what)
            log.warning("mcp.refused", server=self.name, what=what)
        if what == "elicitation":  # a tool may go on without
            return ElicitResult(action="decline")
        return ErrorData(code=INVALID_REQUEST, message=f"opsmesh declines {what}")

    def _open(self) -> Client:
        if self._client is None:
            raise MCPError(code=CONNECTION_CLOSED, message="the session is over")
        return self._client

    def _which(self, tool: str) -> str:
        return f"{self.name}/{tool}"

    def _why(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        transport = self._transport
        if transport is not None and transport.fault:
            return transport.fault
        if isinstance(error, Unstartable):
            return f"cannot be started: {error.reason}"
        if isinstance(error, ValidationError):
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            return f"breaks the protocol: {error.title} {where}"[:300]
        if isinstance(error, MCPError):
            return f"does not come up: {checks.short(error.message)}"
        return f"cannot be reached: {type(error).__name__}: {checks.short(str(error))}"


def _heard_of(ready: asyncio.Future[None]) -> None:
    if not ready.cancelled():
        ready.exception()


async def _never(context: Any, params: Any) -> ElicitResult:
    """`Session._asked` stands before it."""
    return ElicitResult(action="decline")


async def _not_by_the_sdk(name: str, result: Any) -> None:
    """An answer is checked by `checks.result`."""


def _filled(spec: McpServer, fill: Callable[[str], str]) -> tuple[dict[str, str], dict[str, str]]:
    env = {name: fill(text) for name, text in spec.env.items()}
    return env, {name: fill(text) for name, text in spec.headers.items()}
