"""The life of a question: put into the index, into the ledger, before people; and its end.

Each of these is a write of its own, and a handlers process may be killed between any two of them:
whoever comes next does what is left, and tells nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Final

import structlog

from opsmesh.handlers.live.firing import Gone, fetch
from opsmesh.handlers.runs import asking, results
from opsmesh.handlers.runs.ledger import Asked, Replied, Run, StepRecord
from opsmesh.handlers.runs.services import Job, Services
from opsmesh.handlers.runs.steps import Paused
from opsmesh.router.connection import AWAY
from opsmesh.router.errors import PermissionDenied
from opsmesh.router.scan import scan
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event, subject

#: Clocks may differ by so much: an event is looked for from then on before it can have been told.
CLOCKS_US: Final = 3600 * 1_000_000
#: For so long the broker surely knows the id of an event, and stores it once (its window is twice
#: that: `topology`).
BROKER_KNOWS_US: Final = 60 * 1_000_000
#: Looks go back to the beginning of a day, and hold for so many seconds: what was told meanwhile
#: the broker knows.
DAY_US: Final = 86400 * 1_000_000
LOOK_S: Final = 10.0
#: Seconds between looks for questions that lead to nothing.
SWEEP_S: Final = 3600.0

log = structlog.get_logger()


@dataclass
class Look:
    """What was told under a subject from some time on; `until` is when it counts no more."""

    since_us: int
    until: float
    ids: set[str] = field(default_factory=set)


class Asker:
    """Asks for the runs of one process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._looking = asyncio.Lock()
        self._looks: dict[str, Look] = {}

    async def ask(self, job: Job, paused: Paused) -> None:
        """Put a step's question: into the index, into the ledger, and before people."""
        run, cause, now_us = job.held.run, job.events[-1].event, times.now_us()
        key = self._services.question_key
        asked = asking.put(run, paused.record, paused.question, key=key, now_us=now_us)
        await self._services.index.put(asked.id, run.key)
        run.state, run.holder = "waiting", None
        await job.held.save(now_us)
        await self._services.publish(results.asked(run, paused.record, asked, cause))
        job.told = asked.id
        log.info("step.asks", profile=run.profile, step=paused.record.id, prompt=asked.prompt)

    async def answered(self, job: Job, step: StepRecord) -> bool:
        """Whether the step's question has ended; how, is told before anything follows from it."""
        run, cause, now_us = job.held.run, job.events[-1].event, times.now_us()
        asked = step.asked[-1]
        if asked.reply is None and not asked.expired(now_us):
            return False
        if asked.reply is None:
            asked = asking.end(step, Replied(verdict="expired", at_us=now_us))
            await job.held.save(now_us)
        await self._tell_end(run, step, asked, cause, told=job.told)
        log.info("step.answered", profile=run.profile, step=step.id, how=asking.why(asked))
        return True

    async def remind(self, job: Job) -> None:
        """See to it that a run which waits can be found, and that its question was told: whoever
        put it may have been killed in between."""
        run, step, asked = job.held.run, job.held.run.asking, job.held.run.question
        if step is None:
            await self._services.index.put(run.run_id, run.key)
            return
        if asked is None or job.told == asked.id:
            return
        await self._services.index.put(asked.id, run.key)
        cause = (await fetch(self._services.client, run))[-1].event
        await self._tell_once(results.asked(run, step, asked, cause), asked.asked_us)
        job.told = asked.id

    async def _tell_end(
        self, run: Run, step: StepRecord, asked: Asked, cause: Event | None, *, told: str = ""
    ) -> None:
        """Tell how a question ended; only then it is open no more for those who look for it.
        `told` is one of which people know for sure: who is killed before that may be answered all
        the same, for the question is in the ledger."""
        if cause is not None and asked.reply is not None:
            if told != asked.id:
                await self._tell_once(results.asked(run, step, asked, cause), asked.asked_us)
            event = results.decided(run, step, asked, cause)
            await self._tell_once(event, asked.reply.at_us)
        await self._services.index.end(asked.id, run.key)

    async def _tell_once(self, event: Event, since_us: int) -> None:
        """Publish what may have been told before, by somebody who was killed since."""
        if times.now_us() - since_us > BROKER_KNOWS_US:
            known = await self._told(subject(event.host, event.topic), since_us - CLOCKS_US)
            if event.id in known:
                return
        await self._services.publish(event)

    async def _told(self, name: str, since_us: int) -> set[str]:
        """Ids of the events under a subject. A thousand runs that wait are taken up at the same
        moment: one look is for all of them."""
        since_us = max(0, since_us // DAY_US * DAY_US)
        async with self._looking:
            look = self._looks.get(name)
            if look is None or look.since_us > since_us or look.until < time.monotonic():
                look = Look(since_us, time.monotonic() + LOOK_S)
                client = self._services.client
                async for msg in scan(
                    client, EVENTS, subjects=[name], since_us=since_us, headers_only=True
                ):
                    look.ids.add((msg.headers or {}).get("Nats-Msg-Id", ""))
                self._looks[name] = look
            return look.ids

    async def clear(self, question_id: str, run_key: str) -> None:
        """End a question that leads to nothing: whoever put it was killed before the ledger had
        it, or whoever ended its run before that was told."""
        held = await self._services.ledger.get(run_key)
        run = held.run if held is not None else None
        if run is None:
            await self._services.index.end(question_id, run_key)
        elif run.finished or run.state == "failing":
            for step in run.steps:
                for asked in step.asked:
                    if asked.id == question_id:
                        await self._tell_end(run, step, asked, await self._cause(run))
                        return
            await self._services.index.end(question_id, run_key)

    async def sweep(self) -> None:
        """Clear what was left behind, now and from time to time."""
        while True:
            try:
                async for question_id, run_key in self._services.index.open():
                    with contextlib.suppress(PermissionDenied):  # another handler's to clear
                        await self.clear(question_id, run_key)
            except AWAY as error:
                log.debug("questions.not_swept", error=str(error))
            await asyncio.sleep(SWEEP_S)

    async def _cause(self, run: Run) -> Event | None:
        try:
            return (await fetch(self._services.client, run))[-1].event
        except Gone:
            return None

    async def withdrawn(self, job: Job, step: StepRecord | None) -> None:
        """Tell how the question of a run ended that has ended itself."""
        if step is not None:
            cause = job.events[-1].event if job.events else None
            await self._tell_end(job.held.run, step, step.asked[-1], cause, told=job.told)
