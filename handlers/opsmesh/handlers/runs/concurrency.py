"""How runs of one profile stand beside each other: whose turn it is."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

Mode = Literal["parallel", "queued", "single", "restart"]


@dataclass(frozen=True, kw_only=True)
class Concurrency:
    """What a profile says of it; `key` names the event's fields that are told apart."""

    mode: Mode = "parallel"
    limit: int = 1
    key: tuple[str, ...] = ()


class Turns:
    """At most `limit` at once for each key, first come, first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, key: str, *, taken: bool = False) -> AsyncIterator[None]:
        """Wait for a turn, and hold it; one that was `taken` is held at once."""
        if not taken:
            await self._enter(key)
        try:
            yield
        finally:
            self.leave(key)

    def take(self, key: str) -> bool:
        """Take a turn if there is one now, and nobody waits for it."""
        if self._waiting.get(key) or self._taken[key] >= self._limit:
            return False
        self._taken[key] += 1
        return True

    def leave(self, key: str) -> None:
        """Give a turn back."""
        self._taken[key] -= 1
        if self._taken[key] <= 0:
            del self._taken[key]
        self._next(key)

    def change(self, limit: int) -> None:
        """Another limit; turns that are taken stay so."""
        self._limit = limit
        for key in list(self._waiting):
            self._next(key)

    async def _enter(self, key: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        self._next(key)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(key)
            raise

    def _next(self, key: str) -> None:
        waiting = self._waiting.get(key)
        while waiting and self._taken[key] < self._limit:
            turn = waiting.popleft()
            if not turn.done():
                self._taken[key] += 1
                turn.set_result(None)
        if not waiting:
            self._waiting.pop(key, None)
