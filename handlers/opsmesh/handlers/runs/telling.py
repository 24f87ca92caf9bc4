"""Telling what became of runs: after the ledger says it, and without fail.

A run's end is written first, with compare-and-set: a holder that was replaced is refused there, and
tells nothing. Its event follows in the background. A crash in between loses no event: an owner
notes in its cursor up to which revision of the ledger everything is told, and its successor tells
the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from nats.aio.client import Client

from opsmesh.handlers import figures
from opsmesh.handlers.live.firing import Gone, fetch
from opsmesh.handlers.runs import results
from opsmesh.handlers.runs.ledger import Held, Run
from opsmesh.router import logs, tasks
from opsmesh.router.scan import scan
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event

#: Clocks may differ by so many seconds: from then on before a run began its event is looked for.
CLOCKS: Final = 3600.0
#: Seconds in which a host that has ended a run for us has told so.
AFTER: Final = 2.0
#: Seconds between attempts to read while the broker is away.
RETRY: Final = 1.0

log = structlog.get_logger()


class Telling:
    """Writes the ends of runs, tells of them, and removes their folders."""

    def __init__(
        self,
        client: Client,
        publish: Callable[[Event], Awaitable[None]],
        workdirs: Path,
    ) -> None:
        self._client = client
        self._publish = publish
        self._workdirs = workdirs
        self._highest = 1
        #: What is not told yet, each with a revision below its own.
        self._floors: dict[object, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def told(self) -> int:
        """Everything that the ledger says up to this revision is told."""
        return min(self._floors.values(), default=self._highest)

    async def end(self, held: Held, cause: Event | None) -> None:
        """Write what became of a run, or of an attempt, and have it told; Conflict when the run is
        another handler's. Done to its end also when the caller is cancelled."""
        await asyncio.shield(self._start(self._end(held, cause)))

    async def again(self, ended: Sequence[Held], told: int) -> None:
        """Have told what a predecessor has not: `told` is what its cursor says, 0 for a cursor of
        a version that did not know of it."""
        recent_us = times.now_us() - round(CLOCKS * 1e6)
        late = [
            held
            for held in ended
            if (held.revision > told if told else held.run.updated_us > recent_us)
        ]
        token = object()
        if late:
            self._floors[token] = min(held.revision for held in late) - 1
            self._start(self._look(token, late))
        self._highest = max(self._highest, told, *(held.revision for held in ended))

    def afterwards(self, held: Held, cause: Event) -> None:
        """Have told what another host has ended for us, should it have gone before it told: the
        broker knows the same event again."""
        event = results.of(held.run, cause)
        if event is not None:
            self._start(self._after(event))

    async def _after(self, event: Event) -> None:
        await asyncio.sleep(AFTER)
        await self._published(event)

    async def stop(self, grace: float) -> None:
        """Give what is being told `grace` seconds; a successor tells the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        await tasks.end(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone, and has no use for it

    async def _end(self, held: Held, cause: Event | None) -> None:
        token = object()
        self._floors[token] = self._highest  # the end's revision will be a higher one
        try:
            await held.save(times.now_us())
        except BaseException:
            del self._floors[token]
            raise
        self._highest = max(self._highest, held.revision)
        _count(held.run)
        event = results.of(held.run, cause) if cause is not None else None
        self._start(self._tell(token, held.run, event))

    async def _tell(self, token: object, run: Run, event: Event | None) -> None:
        if event is not None:
            await self._published(event)
        del self._floors[token]
        if run.finished:
            await self.clean(run)

    async def _published(self, event: Event) -> None:
        try:
            await self._publish(event)
        except Exception:  # the broker's absence is waited for: this one cannot be told at all
            with logs.of_run(event.run_id or "", event.correlation_id):
                log.exception("run.not_told", topic=event.topic)

    async def clean(self, run: Run) -> None:
        """A finished run's private folder goes; evidence bundles lie elsewhere."""
        folder = self._workdirs / run.run_id
        if folder.exists():
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _look(self, token: object, late: Sequence[Held]) -> None:
        while True:
            try:
                await self._tell_missing(late)
                break
            except Exception as error:  # the broker is away
                log.debug("runs.not_told", error=str(error))
                await asyncio.sleep(RETRY)
        del self._floors[token]

    async def _tell_missing(self, late: Sequence[Held]) -> None:
        since_us = min(held.run.created_us for held in late) - round(CLOCKS * 1e6)
        subjects = ["evt.*.automation.run.>"]
        known = set()
        async for msg in scan(
            self._client, EVENTS, subjects=subjects, since_us=max(0, since_us), headers_only=True
        ):
            known.add((msg.headers or {}).get("Nats-Msg-Id", ""))
        for held in late:
            with contextlib.suppress(Gone):
                cause = (await fetch(self._client, held.run))[-1].event
                event = results.of(held.run, cause)
                if event is not None and event.id not in known:
                    await self._published(event)
                    with logs.of_run(held.run.run_id, held.run.correlation_id):
                        log.info("run.told_late", state=held.run.state)


def _count(run: Run) -> None:
    if run.state == "retrying":
        figures.RETRIES.add(run.profile)
    elif run.finished:
        figures.RUNS.add(run.profile, run.state)
    if run.state == "deadlettered":
        figures.DEAD_LETTERS.add(run.profile)
    if run.duration_ms is not None and run.state not in ("skipped", "cancelled"):
        figures.RUN_SECONDS.observe(run.duration_ms / 1e3, run.profile)
    if (waited_ms := results.waited_ms(run)) is not None:
        figures.TO_ACTION.observe(waited_ms / 1e3, run.profile)
