"""A profile's runs: started as its concurrency allows, tried again, ended, resumed.

A run is in the ledger before it is here. One that may begin at once has its turn before it is
written, so that the write that says "it is fired" says "its first step is started" too. A handler
that dies leaves behind what its successor goes on with.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from typing import Final

import structlog

from opsmesh.handlers import figures
from opsmesh.handlers.actions.contract import CANCELLED
from opsmesh.handlers.live.firing import Gone, Stored, fetch
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs import answers
from opsmesh.handlers.runs.attempts import Attempts
from opsmesh.handlers.runs.concurrency import Turns
from opsmesh.handlers.runs.guests import may_go
from opsmesh.handlers.runs.holder import this_process
from opsmesh.handlers.runs.lease import Lost
from opsmesh.handlers.runs.ledger import Held, Run
from opsmesh.handlers.runs.offering import Offers
from opsmesh.handlers.runs.services import Job, Services
from opsmesh.handlers.runs.steps import begun
from opsmesh.handlers.runs.takeover import FOLLOW_S, free, read
from opsmesh.handlers.runs.telling import Telling
from opsmesh.router import logs, tasks
from opsmesh.router.connection import AWAY
from opsmesh.router.kv import Conflict
from opsmesh.schemas import times

#: Seconds before a run is taken up again when the handler itself failed: nearly always the broker,
#: which will be back.
UNEXPECTED_DELAY: Final = 5.0

#: Seconds before a run is taken up again on which somebody else was still at work.
CONTENDED_DELAY: Final = 2.0
#: Seconds that the end of a handler may take for what it writes last.
LAST_WRITES: Final = 2.0

log = structlog.get_logger()

__all__ = ["Runs", "Services"]


class Runs:
    """The runs of one profile in this process; `profile` may be exchanged while they go on."""

    def __init__(self, profile: Profile, services: Services) -> None:
        self._services = services
        self._me = this_process(services.host)
        self._telling = Telling(services.client, services.publish, services.workdirs)
        self._attempts = Attempts(services, self._me, self._telling)
        self._offers = Offers(services.client, services.host)
        self._turns = Turns(profile.concurrency.limit)
        self._acting = asyncio.Event()
        self._jobs: dict[str, Job] = {}
        #: Runs that have their turn, and are on their way into the ledger.
        self._reserved: dict[str, Run] = {}
        #: Jobs and reserved runs for each value of the concurrency key.
        self._beside: Counter[str] = Counter()
        #: Runs that may be in the ledger as started by us, and have not been.
        self._unbegun: set[str] = set()
        #: Runs that are on their way into the ledger, or are there, and have not been begun.
        self._coming: dict[str, Run] = {}
        #: Such runs that a newer one takes the place of, or that nobody wants any more, and why.
        self._replaced: dict[str, str] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._log = log.bind(profile=profile.name)
        self.exchange(profile)

    @property
    def told(self) -> int:
        """The revision of the ledger up to which everything is told."""
        return self._telling.told

    @property
    def waiting(self) -> list[str]:
        """The runs of which a person has to say how they go on, by their ids; not those that wait
        for an approval."""
        runs = (job.held.run for job in self._jobs.values())
        return [run.run_id for run in runs if run.state == "waiting" and run.asking is None]

    @property
    def asking(self) -> int:
        """How many runs wait for a person's answer, whatever was asked."""
        return sum(job.held.run.state == "waiting" for job in self._jobs.values())

    def exchange(self, profile: Profile) -> None:
        """Go on with a new text or state: attempts that begin from now on are made with it."""
        self.profile = profile
        self._turns.change(profile.concurrency.limit)
        if profile.state == "disabled":  # queued work waits; it is never dead-lettered for it
            self._acting.clear()
        else:
            self._acting.set()

    async def store(self, runs: Sequence[Run]) -> list[Held]:
        """Write runs that have been fired; those that may begin at once as begun. Each of them is
        to be handed to `begin`, `let_go` or `not_stored`; what is written twice stays as it is."""
        for run in runs:
            if run.state == "queued" and run.key not in self._jobs:
                self._coming[run.key] = run
                self._reserve(run)
        return await self._services.ledger.create_all(runs)

    def store_now(self, run: Run) -> Held | None:
        """The same for a single run that may begin at once: its record is on its way, and the
        broker gets it whatever becomes of this process. None: use `store`."""
        if run.key in self._reserved or run.key in self._jobs:
            return None
        self._reserve(run)
        return self._services.ledger.create_now(run) if run.key in self._reserved else None

    def _reserve(self, run: Run) -> None:
        if run.state != "queued":  # it may have been begun by somebody who is gone
            return
        policy = self.profile.concurrency
        if run.profile_hash != self.profile.hash or not self._acting.is_set():
            return
        if self._may_be_handed_over:  # another host may have a place for it
            return
        first = self.profile.steps[0]
        if first.approve is not None or first.when is not None:  # perhaps it does not begin with it
            return
        # in order: whoever is here has its turn, or is before this one
        if policy.mode != "parallel" and self._beside[run.slot] >= policy.limit:
            return
        if not self._turns.take(run.slot):
            return
        self._reserved[run.key] = run
        self._count(run.slot, 1)
        now_us = times.now_us()
        run.state, run.attempt = "running", 1
        run.holder = self._services.ledger.leased(self._me, now_us)
        run.steps = [begun(self.profile.steps[0], now_us)]

    def let_go(self, run: Run) -> None:
        """Another record stands for this run: it is not begun."""
        self._coming.pop(run.key, None)
        if (reserved := self._reserved.pop(run.key, None)) is not None:
            self._count(reserved.slot, -1)
            self._turns.leave(reserved.slot)

    def unreserve(self) -> None:
        """Whoever stored runs has ended before it began them: somebody else will."""
        self._coming.clear()
        for run in list(self._reserved.values()):
            self.not_stored(run)

    def not_stored(self, run: Run) -> None:
        """Whether the ledger has it is not known, and whoever stored it takes it up anew: what was
        reserved is given back, and a record that says that it has begun is not believed."""
        self._unbegun.add(run.key)
        self.let_go(run)

    def begin(self, held: Held, events: Sequence[Stored] = ()) -> None:
        """Take a run of the ledger up; one that is finished, or here already, is left alone."""
        run, key = held.run, held.run.key
        reserved = self._reserved.pop(key, None)
        self._coming.pop(key, None)
        ours = run.holder is not None and run.holder.id == self._me.id
        fresh = ours and (reserved is not None or key in self._unbegun)
        busy = run.finished or key in self._jobs
        if reserved is not None:
            self._count(reserved.slot, -1)
            if busy or not fresh:
                self._turns.leave(reserved.slot)
        replaced = self._replaced.pop(key, "")
        if busy:
            return
        self._unbegun.discard(key)
        job = Job(held, events, fresh=fresh, turn=fresh and reserved is not None)
        mode = self.profile.concurrency.mode
        others = self._others(run.slot) if mode in ("single", "restart") else []
        self._jobs[key] = job
        self._count(run.slot, 1)
        if replaced:
            self._go(job, self._attempts.set_aside(job, "cancelled", replaced))
        elif mode == "single" and others:
            reason = f"run {others[0].run_id} was under way"
            self._go(job, self._attempts.set_aside(job, "skipped", reason))
        else:
            if mode == "restart":
                self._replace(others, f"run {run.run_id} took its place")
            self._go(job, self._to_its_end(job))

    def resume(self, unfinished: Sequence[Held]) -> None:
        """Bring what a predecessor left behind to its end, in its order."""
        for held in sorted(unfinished, key=lambda held: held.run.stored_us):
            self.begin(held)

    async def tell(self, ended: Sequence[Held], told: int) -> None:
        """Have told what a predecessor has written, and has not told."""
        await self._telling.again(ended, told)

    async def stop(self, grace: float) -> None:
        """Begin nothing more, give attempts `grace` seconds, and end them then; the ledger keeps
        their place."""
        self._acting.clear()
        self.unreserve()
        jobs = {job.task: job for job in self._jobs.values() if job.task is not None}
        busy = [task for task, job in jobs.items() if job.held.run.state == "running"]
        if busy:
            await asyncio.wait(busy, timeout=grace)
        await tasks.end(jobs)
        await asyncio.gather(self._release(jobs.values()), self._telling.stop(LAST_WRITES))

    async def _release(self, jobs: Iterable[Job]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITES):
                await asyncio.gather(*(self._attempts.release(job) for job in jobs))

    def cancel(self, run_id: str, reason: str) -> bool:
        """End a run that somebody does not want any more; False when it is not here. One that the
        ledger has and that is not begun yet is: whoever reads the ledger may be sooner than we."""
        jobs = [job.held.run for job in self._jobs.values()]
        found = [run for run in (*jobs, *self._coming.values()) if run.run_id == run_id]
        self._replace(found, reason)
        return bool(found)

    @property
    def under_way(self) -> int:
        """Runs that are begun, or wait for their turn, and have not ended."""
        return len(self._jobs)

    def _others(self, slot: str) -> list[Run]:
        jobs = [job.held.run for job in self._jobs.values()]
        return [run for run in (*jobs, *self._reserved.values()) if run.slot == slot]

    def _replace(self, others: Sequence[Run], reason: str) -> None:
        for run in others:
            job = self._jobs.get(run.key)
            if job is None:
                self._replaced[run.key] = reason
                continue
            job.cancelled = reason
            stopping = asyncio.create_task(self._cancel(job))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    def _go(self, job: Job, work: Coroutine[None, None, None]) -> None:
        job.task = asyncio.create_task(work)
        job.task.add_done_callback(lambda _: self._done(job))
        figures.UNDER_WAY.set(len(self._jobs), self.profile.name)

    def _done(self, job: Job) -> None:
        run = job.held.run
        del self._jobs[run.key]
        figures.UNDER_WAY.set(len(self._jobs), self.profile.name)
        self._count(run.slot, -1)
        if job.turn:  # it was ended before it came to hold it
            self._turns.leave(run.slot)

    def _count(self, slot: str, more: int) -> None:
        self._beside[slot] += more
        if not self._beside[slot]:
            del self._beside[slot]

    async def _cancel(self, job: Job) -> None:
        """Stop a run; told until it hears, for the reason that `router.tasks` gives."""
        while job.task is not None and not (job.heard or job.task.done()):
            job.task.cancel(CANCELLED)
            await asyncio.wait([job.task], timeout=tasks.AGAIN)

    async def _to_its_end(self, job: Job) -> None:
        run = job.held.run
        try:
            with logs.of_run(run.run_id, run.correlation_id):
                await self._until_none(job)
        except asyncio.CancelledError:
            if not job.cancelled:
                raise
            job.heard = True
            await self._attempts.set_aside(job, "cancelled", job.cancelled)

    async def _until_none(self, job: Job) -> None:
        """Attempts, until there is no next one. In order means also across retries and questions;
        else a run that waits for either lets others pass."""
        run = job.held.run
        delay: float | None = max(0.0, (run.next_us - times.now_us()) / 1e6)
        while delay is not None:
            if not self._in_order:
                await self._pause(job, delay)
            taken, job.turn = job.turn, False
            async with self._turns.turn(run.slot, taken=taken):
                if self._in_order:
                    await self._pause(job, delay)
                delay = await self._attempt(job)
                while delay is not None and self._in_order:
                    await self._pause(job, delay)
                    delay = await self._attempt(job)

    @property
    def _may_be_handed_over(self) -> bool:
        """Whether runs that begin now are offered to other hosts: this one has no place."""
        return self.profile.run_on == "any" and not self._services.places.free

    async def _handed_over(self, job: Job) -> str:
        """The host that makes the next attempt; "" for this one."""
        if not self._may_be_handed_over or not may_go(job.held.run):
            return ""
        return await self._offers.taken(job.held, self.profile)

    async def _follow(self, job: Job, host: str) -> float | None:
        """Wait for the end of an attempt that another host makes; how it goes on here."""
        self._log.info("run.handed_over", run_id=job.held.run.run_id, host=host)
        ledger = self._services.ledger
        held = await read(job.held, ledger)
        job.held = held = await free(held, ledger, self._me, look_s=FOLLOW_S)
        if not job.events:
            job.events = await fetch(self._services.client, held.run)
        run = held.run
        self._telling.afterwards(held, job.events[-1].event)
        if run.finished:
            return None
        return max(0.0, (run.next_us - times.now_us()) / 1e6) if run.state == "retrying" else 0.0

    @property
    def _in_order(self) -> bool:
        return self.profile.concurrency.mode != "parallel"

    async def _pause(self, job: Job, delay: float) -> None:
        """Wait for the next attempt's time, or for a person's answer."""
        if job.held.run.state == "waiting":
            await self._answered(job)
        elif delay > 0:
            await asyncio.sleep(delay)

    async def _answered(self, job: Job) -> None:
        client, ledger = self._services.client, self._services.ledger
        while True:
            try:
                await self._attempts.remind(job)
                job.held = await answers.awaited(client, ledger, job.held)
                return
            except Gone as gone:  # its event went with age; `once` gives the run up
                self._log.warning("run.event_gone", run_id=job.held.run.run_id, error=str(gone))
                return
            except Exception as error:
                if not isinstance(error, AWAY):
                    self._log.exception("run.interrupted", run_id=job.held.run.run_id)
                elif logs.away.allows(logs.BROKER):
                    self._log.warning("run.interrupted", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(UNEXPECTED_DELAY)
            job.held = await read(job.held, ledger)
            if job.held.run.state != "waiting":
                return

    async def _attempt(self, job: Job) -> float | None:
        """One attempt; seconds to the next one, or None at the run's end."""
        if not job.fresh:  # that one was admitted before it was written
            await self._acting.wait()
        try:
            if not job.fresh and (host := await self._handed_over(job)):
                return await self._follow(job, host)
            with self._services.places.one():
                return await self._attempts.once(job, self.profile)
        except Conflict:
            # Whoever has taken it over goes on with it; when nobody has, or when it dies, we do.
            self._log.info("run.contended", run_id=job.held.run.run_id)
            delay = CONTENDED_DELAY
        except Lost:  # the same, or the broker is away: then every run under way ends up here
            if logs.away.allows(logs.BROKER):
                self._log.info("run.lease_lost", run_id=job.held.run.run_id)
            delay = CONTENDED_DELAY
        except Exception as error:
            if not isinstance(error, AWAY):
                self._log.exception("run.interrupted", run_id=job.held.run.run_id)
            elif logs.away.allows(logs.BROKER):
                self._log.warning("run.interrupted", error=f"{type(error).__name__}: {error}")
            delay = UNEXPECTED_DELAY
        job.held, job.fresh = await read(job.held, self._services.ledger), False
        return None if job.held.run.finished else delay
