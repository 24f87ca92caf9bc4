"""A profile's runs: started as its concurrency allows, tried again, ended, resumed.

A run is in the ledger before it is here. Everything that must not be lost is written before the
next thing begins: each step before it starts, the dead letter and the result event before the end.
A handler that dies leaves behind what its successor goes on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog
from nats.aio.client import Client

from opsmesh.handlers.live.firing import Gone, Stored, fetch
from opsmesh.handlers.live.vigil import Vigil
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs import results
from opsmesh.handlers.runs.concurrency import Turns
from opsmesh.handlers.runs.ledger import AttemptError, Held, Ledger
from opsmesh.handlers.runs.steps import Failure, Surroundings, attempt
from opsmesh.router import deadletter, tasks
from opsmesh.router.kv import Conflict
from opsmesh.router.retry import delay_s
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event
from opsmesh.schemas.redact import Redactor, built_in
from opsmesh.schemas.registry import Registry

#: Seconds before a run is taken up again when the handler itself failed: nearly always the broker,
#: which will be back.
UNEXPECTED_DELAY: Final = 5.0

#: Seconds before a run is taken up again on which somebody else was still at work.
CONTENDED_DELAY: Final = 2.0
#: Compare-and-set attempts at the record of a run that has been stopped.
SAVE_TRIES: Final = 5

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Services:
    """What every profile of a handler process shares."""

    client: Client
    ledger: Ledger
    registry: Registry
    host: str
    bundles: Path
    workdirs: Path
    publish: Callable[[Event], Awaitable[None]]
    redactor: Redactor = field(default_factory=built_in)

    @cached_property
    def vigil(self) -> Vigil:
        """Whether this process has been away."""
        return Vigil(self.client)


@dataclass(eq=False)
class Job:
    """One run under way. `events` are those of the firing, the run's own event the last; none: they
    are read when it begins."""

    held: Held
    events: Sequence[Stored] = ()
    task: asyncio.Task[None] | None = None
    #: Why it has to end, once it has; and whether it has heard.
    cancelled: str = ""
    heard: bool = False


class Runs:
    """The runs of one profile in this process; `profile` may be exchanged while they go on."""

    def __init__(self, profile: Profile, services: Services) -> None:
        self._services = services
        self._turns = Turns(profile.concurrency.limit)
        self._acting = asyncio.Event()
        self._jobs: dict[str, Job] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._log = log.bind(profile=profile.name)
        self.exchange(profile)

    def exchange(self, profile: Profile) -> None:
        """Go on with a new text or state: attempts that begin from now on are made with it."""
        self.profile = profile
        self._turns.change(profile.concurrency.limit)
        if profile.state == "disabled":  # queued work waits; it is never dead-lettered for it
            self._acting.clear()
        else:
            self._acting.set()

    def begin(self, held: Held, events: Sequence[Stored] = ()) -> None:
        """Take a run of the ledger up; one that is finished, or here already, is left alone."""
        run = held.run
        if run.finished or run.key in self._jobs:
            return
        job = Job(held, events)
        others = [other for other in self._jobs.values() if other.held.run.slot == run.slot]
        mode = self.profile.concurrency.mode
        self._jobs[run.key] = job
        if mode == "single" and others:
            reason = f"run {others[0].held.run.run_id} was under way"
            self._go(job, self._set_aside(job, "skipped", reason))
            return
        if mode == "restart":
            for other in others:
                other.cancelled = f"run {run.run_id} took its place"
                stopping = asyncio.create_task(self._cancel(other))
                self._stopping.add(stopping)
                stopping.add_done_callback(self._stopping.discard)
        self._go(job, self._to_its_end(job))

    async def stop(self, grace: float) -> None:
        """Begin nothing more, give attempts `grace` seconds, and end them then; the ledger keeps
        their place."""
        self._acting.clear()
        under_way = {job.task: job for job in self._jobs.values() if job.task is not None}
        busy = [task for task, job in under_way.items() if job.held.run.state == "running"]
        if busy:
            await asyncio.wait(busy, timeout=grace)
        await tasks.end(under_way)

    @property
    def under_way(self) -> int:
        """Runs that are begun, or wait for their turn, and have not ended."""
        return len(self._jobs)

    def _go(self, job: Job, work: Coroutine[None, None, None]) -> None:
        job.task = asyncio.create_task(work)
        job.task.add_done_callback(lambda _: self._jobs.pop(job.held.run.key, None))

    async def _cancel(self, job: Job) -> None:
        """Stop a run; told until it hears, for the reason that `router.tasks` gives."""
        while job.task is not None and not (job.heard or job.task.done()):
            job.task.cancel()
            await asyncio.wait([job.task], timeout=tasks.AGAIN)

    async def _to_its_end(self, job: Job) -> None:
        run = job.held.run
        try:
            with structlog.contextvars.bound_contextvars(
                run_id=run.run_id, correlation_id=run.correlation_id
            ):
                await self._attempts(job)
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
            job.heard = True
            await self._set_aside(job, "cancelled", job.cancelled)

    async def _attempts(self, job: Job) -> None:
        slot = job.held.run.slot
        delay: float | None = max(0.0, (job.held.run.next_us - times.now_us()) / 1e6)
        while delay is not None:
            await asyncio.sleep(delay)
            async with self._turns.turn(slot):
                delay = await self._attempt(job)
                # in order means also across retries; else a run that waits lets others pass
                while delay is not None and self.profile.concurrency.mode != "parallel":
                    await asyncio.sleep(delay)
                    delay = await self._attempt(job)

    async def _attempt(self, job: Job) -> float | None:
        """One attempt; seconds to the next one, or None at the run's end."""
        await self._acting.wait()
        try:
            if not job.events:
                job.events = await fetch(self._services.client, job.held.run)
            return await self._once(job)
        except Conflict:
            # The one whose place we took was still at it, and stops when it hears of us; if we are
            # the one, somebody else is the owner, and we are stopped.
            self._log.info("run.contended", run_id=job.held.run.run_id)
            job.held = await self._reread(job.held)
            return None if job.held.run.finished else CONTENDED_DELAY
        except Gone as gone:
            await self._dead(job, Failure(step="", error=str(gone)))
            return None
        except Exception:
            self._log.exception("run.interrupted", run_id=job.held.run.run_id)
            held = await self._reread(job.held)
            job.held = held
            return None if held.run.finished else UNEXPECTED_DELAY

    async def _reread(self, held: Held) -> Held:
        while True:
            try:
                return await self._services.ledger.get(held.run.key) or held
            except Exception as error:
                self._log.debug("run.not_read", error=str(error))
                await asyncio.sleep(UNEXPECTED_DELAY)

    async def _once(self, job: Job) -> float | None:
        run, profile, event = job.held.run, self.profile, job.events[-1].event
        policy = profile.retry
        if run.attempt >= policy.attempts:
            error = f"the handler ended during attempt {run.attempt}"
            await self._dead(job, Failure(step="", error=error))
            return None
        if run.profile_hash != profile.hash:  # edited meanwhile: today's definition, from the start
            run.profile_hash = profile.hash
            run.steps = []
        run.attempt += 1
        run.state = "running"
        began = time.monotonic()
        failure = await self._steps(job)
        run.duration_ms = round((time.monotonic() - began) * 1e3, 3)
        now_us = times.now_us()
        if failure is None:
            run.state = "succeeded"
            await self._clean(job)
            await self._services.publish(results.succeeded(run, event, now_us=now_us))
            await job.held.save(now_us)
            self._log.info("run.succeeded", attempt=run.attempt, duration_ms=run.duration_ms)
            return None
        run.errors.append(
            AttemptError(attempt=run.attempt, at_us=now_us, step=failure.step, error=failure.error)
        )
        if not failure.retryable or run.attempt >= policy.attempts:
            await self._dead(job, failure)
            return None
        delay = failure.retry_in_s
        if delay is None:
            delay = delay_s(policy, attempt=run.attempt, chance=random.random())  # noqa: S311
        run.state = "retrying"
        run.next_us = now_us + round(delay * 1e6)
        await self._services.publish(
            results.failed(run, event, now_us=now_us, next_attempt_in_s=delay)
        )
        await job.held.save(now_us)
        self._log.warning("run.failed", attempt=run.attempt, error=failure.error, retry_in_s=delay)
        return delay

    async def _steps(self, job: Job) -> Failure | None:
        main = job.events[-1]
        workdir = self._services.workdirs / job.held.run.run_id
        await asyncio.to_thread(workdir.mkdir, mode=0o700, parents=True, exist_ok=True)
        around = Surroundings(
            event=main.event,
            events=[stored.event for stored in job.events],
            data=main.data,
            host=self._services.host,
            workdir=workdir,
            bundles=self._services.bundles,
            publish=self._services.publish,
            redactor=self._services.redactor,
        )
        try:
            async with asyncio.timeout(self.profile.timeout):
                return await attempt(self.profile, job.held, around)
        except TimeoutError:
            step = job.held.run.steps[-1].id if job.held.run.steps else ""
            return Failure(step=step, error=f"the run took over {self.profile.timeout:g} s")

    async def _clean(self, job: Job) -> None:
        """A finished run's private folder goes; evidence bundles lie elsewhere."""
        await asyncio.to_thread(
            shutil.rmtree, self._services.workdirs / job.held.run.run_id, ignore_errors=True
        )

    async def _dead(self, job: Job, failure: Failure) -> None:
        run = job.held.run
        main = job.events[-1] if job.events else None
        origin_host = main.event.host if main else run.host
        seq = await deadletter.write(
            self._services.client,
            profile=run.profile,
            profile_hash=run.profile_hash,
            host=origin_host,
            topic=run.topic,
            data=main.data if main else b"",
            headers=main.headers if main else {},
            reason=failure.error,
            msg_id=f"dlq:{run.key}",
            event_id=run.event_id,
            errors=[msgspec.to_builtins(error) for error in run.errors],
            run_id=run.run_id,
            origin=(EVENTS, run.stream_seq, run.stored_us),
            redactor=self._services.redactor,
        )
        await self._clean(job)
        now_us = times.now_us()
        run.state = "deadlettered"
        if main is not None:
            await self._services.publish(
                results.deadlettered(
                    run, main.event, now_us=now_us, dlq_seq=seq, reason=failure.error
                )
            )
        await job.held.save(now_us)
        self._log.error("run.deadlettered", attempt=run.attempt, error=failure.error, dlq_seq=seq)

    async def _set_aside(
        self, job: Job, state: Literal["skipped", "cancelled"], reason: str
    ) -> None:
        """End a run that another one has no room for."""
        run_id = job.held.run.run_id
        try:
            if not job.events:
                job.events = await fetch(self._services.client, job.held.run)
            for _ in range(SAVE_TRIES):
                # the attempt may have been stopped between writing its record and hearing of it
                job.held = await self._reread(job.held)
                run = job.held.run
                if run.finished:
                    return
                run.state, run.reason = state, reason
                now_us = times.now_us()
                with contextlib.suppress(Conflict):
                    await job.held.save(now_us)
                    break
            await self._clean(job)
            event = results.set_aside(run, job.events[-1].event, now_us=now_us)
            await self._services.publish(event)
            self._log.info(f"run.{state}", run_id=run_id, reason=reason)
        except Gone as gone:
            self._log.warning("run.not_set_aside", run_id=run_id, error=str(gone))
