"""The sessions of a process: one for each server, opened when first asked for, and again when lost.

Whoever asks while one is being opened waits for the same one. After a failure the next opening
waits a little, longer each time: a server that cannot live is not started in a loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from opsmesh.handlers.errors import CallFailed
from opsmesh.handlers.mcp.session import Session
from opsmesh.router.current import Current
from opsmesh.router.mcp_servers import McpServer
from opsmesh.schemas.nearest import did_you_mean

#: Seconds before a server is opened again, after the first failure and at most.
FIRST_S: Final = 0.5
MOST_S: Final = 10.0


@dataclass(eq=False)
class _Place:
    """What is known of one server."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: Session | None = None
    failures: int = 0
    not_before: float = 0.0


class Pool:
    """Gives sessions by the names of servers."""

    def __init__(self, settings: Current | None = None) -> None:
        self._settings = settings or Current()
        self._places: dict[str, _Place] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def spec(self, name: str) -> McpServer:
        """What the settings say of a server; CallFailed `unknown_server` when there is none."""
        servers = self._settings.get().mcp_servers
        if name not in servers:
            raise CallFailed("unknown_server", unknown(name, servers))
        return servers[name]

    async def session(self, name: str, fill: Callable[[str], str]) -> Session:
        """An open session; CallFailed when there is none to be had."""
        spec = self.spec(name)
        place = self._places.setdefault(name, _Place())
        async with place.lock:
            known = place.session
            if known is not None and known.alive and known.spec == spec:
                return known
            if known is not None:
                place.session = None
                self._retire(known)
                if known.alive:  # it is only that its settings are others now
                    place.failures = 0
                elif not known.answered:
                    _failed(place)
            await asyncio.sleep(max(0.0, place.not_before - time.monotonic()))
            try:
                place.session = await Session.open(name, spec, fill=fill)
            except CallFailed:
                _failed(place)
                raise
            if known is None or known.answered:
                place.failures = 0
            return place.session

    async def aclose(self) -> None:
        """End every session and its server."""
        places, self._places = self._places, {}
        for task in self._retiring:
            task.cancel()
        sessions = [place.session for place in places.values() if place.session is not None]
        await asyncio.gather(*(session.aclose() for session in sessions))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._retiring, return_exceptions=True)

    def _retire(self, session: Session) -> None:
        task = asyncio.create_task(session.retire(), name=f"mcp retire {session.name}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


def _failed(place: _Place) -> None:
    place.not_before = time.monotonic() + min(MOST_S, FIRST_S * 2**place.failures)
    place.failures = min(place.failures + 1, 16)


def unknown(name: str, servers: dict[str, McpServer]) -> str:
    """What is said of a server that the settings do not have."""
    near = did_you_mean(name, servers)
    known = near or (f"; there are {', '.join(sorted(servers))}" if servers else "; there is none")
    return f"mcp_servers has no server {name!r}{known}"
