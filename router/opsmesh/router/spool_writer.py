"""The agent's writing into the spool: events that arrive together share a file and its syncs.

The one rule: `keep` returns once the event is on disk, was dropped and counted, or must be kept by
its sender. Events are written in the order of their arrival numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

import structlog

from opsmesh.router import logs, losses, spool, spool_room
from opsmesh.router.spool_reader import MAX_BYTES, MAX_EVENTS
from opsmesh.schemas import ids

log = structlog.get_logger()


class _Waiting(NamedTuple):
    """An event on its way to disk; `kept` is whether it is there, or was dropped."""

    arrival: int
    line: bytes
    asked: bool
    kept: asyncio.Future[bool]


class SpoolWriter:
    """Writes while there is something to write; `before` is awaited ahead of each file, `after` is
    called when all is written. `busy` are files that must not be dropped."""

    def __init__(
        self,
        spool_dir: str,
        counts: Counter[str],
        *,
        before: Callable[[], Awaitable[None]],
        after: Callable[[], None],
        busy: Callable[[], Collection[str]],
    ) -> None:
        self._dir = spool_dir
        self._counts = counts
        self._before = before
        self._after = after
        self._busy = busy
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        self._throttle = logs.Throttle()

    @property
    def writes(self) -> bool:
        """Whether something is on its way to disk."""
        return self._task is not None

    def __len__(self) -> int:
        return len(self._waiting)

    async def done(self) -> None:
        """Returns once nothing is on its way."""
        while self._task is not None:
            await self._task

    async def keep(self, arrival: int, line: bytes, *, asked: bool) -> bool:
        """True: it is on disk. False: dropped, and counted. OSError: its sender has to keep it; one
        that did not ask for an answer (`asked`) cannot, so then it is counted as lost."""
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(arrival, line, asked, kept))
        if self._task is None:
            self._task = asyncio.create_task(self._write())
        return await kept

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._before()
                self._waiting.sort(key=lambda waiting: waiting.arrival)
                group = self._waiting[: _fitting([waiting.line for waiting in self._waiting])]
                del self._waiting[: len(group)]
                await self._write_file(group)
        finally:
            self._task = None
            self._after()

    async def _write_file(self, group: list[_Waiting]) -> None:
        problem: OSError | None = None
        kept = False
        try:
            lines = [waiting.line for waiting in group]
            kept = bool(await asyncio.to_thread(spool.write, self._dir, lines, busy=self._busy()))
        except OSError as error:
            problem = error
            if self._throttle.allows("not written"):
                log.critical("spool.not_written", events=len(group), error=str(error))
            await self._count_unasked(group)
        self._counts["not_kept" if problem else "spooled" if kept else "dropped"] += len(group)
        if not kept and not problem and self._throttle.allows("dropped"):
            log.error("spool.full", events=len(group), policy=spool_room.DROP_NEWEST)
        for waiting in group:
            if waiting.kept.done():
                continue
            if problem is None:
                waiting.kept.set_result(kept)
            else:
                waiting.kept.set_exception(problem)

    async def _count_unasked(self, group: list[_Waiting]) -> None:
        lost = [waiting.line for waiting in group if not waiting.asked]
        if lost:
            with contextlib.suppress(OSError):  # a full disk: what the log says is all there is
                name = f"refused-{ids.uuid7()}"
                await asyncio.to_thread(losses.record, self._dir, name, lost, spool_room.REFUSE)


def _fitting(lines: list[bytes]) -> int:
    """How many of these go into one file."""
    size = 0
    for n, line in enumerate(lines[:MAX_EVENTS]):
        size += len(line)
        if n and size > MAX_BYTES:
            return n
    return min(len(lines), MAX_EVENTS)
