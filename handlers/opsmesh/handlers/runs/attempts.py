"""One attempt of a run, and what follows from it: the end, the next attempt, a dead letter, or a
question to a person.

Everything is in the ledger before it has consequences: a step before it starts, that its outcome is
unknown before anything is done about it, that a run is given up before its dead letter, and its end
before the event that tells of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Final, Literal

import msgspec
import structlog

from opsmesh.handlers.actions.contract import OnUnknown
from opsmesh.handlers.live.firing import Gone, Stored, fetch
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs import asking, results
from opsmesh.handlers.runs.asker import Asker
from opsmesh.handlers.runs.holder import Holder
from opsmesh.handlers.runs.lease import Lease, sure
from opsmesh.handlers.runs.ledger import (
    AttemptError,
    Run,
    StepRecord,
)
from opsmesh.handlers.runs.services import Job, Services
from opsmesh.handlers.runs.steps import Failure, Paused, Surroundings, attempt, resumes
from opsmesh.handlers.runs.takeover import lost, read, take_over
from opsmesh.handlers.runs.telling import Telling
from opsmesh.router import deadletter, logs, traces
from opsmesh.router.kv import Conflict
from opsmesh.router.retry import delay_s
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times

#: Compare-and-set attempts at the record of a run that has been stopped.
SAVE_TRIES: Final = 5
#: Clocks may differ by so much: a letter is looked for from then on before its run was given up.
CLOCKS_US: Final = 3600 * 1_000_000

log = structlog.get_logger()


class Attempts:
    """What is done with one run at a time; `me` holds it."""

    def __init__(self, services: Services, me: Holder, telling: Telling) -> None:
        self._services = services
        self._ledger = services.ledger
        self._me = me
        self._telling = telling
        self._asker = Asker(services)

    async def remind(self, job: Job) -> None:
        """See to it that people know of a run that waits for them."""
        await self._asker.remind(job)

    async def once(self, job: Job, profile: Profile) -> float | None:
        """One attempt; seconds to the next one, or None at the run's end. A run that is `waiting`
        afterwards goes on with an answer."""
        if job.held.run.state == "running" and not job.fresh:
            job.held = await take_over(
                job.held, self._ledger, me=self._me, workdirs=self._services.workdirs
            )
            if job.held.run.finished:
                return None
        try:
            if not job.events:
                job.events = await fetch(self._services.client, job.held.run)
            return await self._once(job, profile)
        except Gone as gone:
            await self._dead(job, Failure(step="", error=str(gone)))
            return None

    async def _once(self, job: Job, profile: Profile) -> float | None:
        run = job.held.run
        if job.fresh and run.profile_hash == profile.hash:
            job.fresh = False
            await sure(job.held, self._ledger.lease_s)
            return await self._attempt(job, profile, first=run.steps[0])
        if job.fresh:  # edited since it was decided
            job.fresh, run.steps = False, []
            return await self._attempt(job, profile)
        if run.state == "failing":
            await self._dead(job, Failure(step="", error=run.reason))
            return None
        if (asks := run.asking) is not None:
            if not await self._asker.answered(job, asks):
                return 0.0
            return await self._attempt(job, profile)
        step, another = run.unsettled, run.state != "running"
        if step is not None and resumes(step):
            log.info("step.resumed", profile=run.profile, step=step.id, attempt=run.attempt)
            step = None
        if step is not None:
            choice = await self._choice(job, step)
            if choice == "ask":
                return 0.0
            if choice == "fail":
                await self._dead(job, Failure(step=step.id, error=step.error or ""))
                return None
            another = choice == "retry"
        asked = step is not None and run.answer(step) is not None
        if another and run.attempt >= profile.retry.attempts and not asked:
            await self._dead(job, _exhausted(run, step))
            return None
        run.attempt += another
        return await self._attempt(job, profile)

    async def _choice(self, job: Job, step: StepRecord) -> OnUnknown:
        """How to go on after a step whose outcome is unknown; told before it is done."""
        run, cause = job.held.run, job.events[-1].event
        answer = run.answer(step)
        if answer is None:
            await self._services.publish(results.unknown(run, step, cause))
            choice: OnUnknown = step.on_unknown
            why = f"on_unknown is {choice}"
        else:
            await self._services.publish(results.answered(run, step, answer, cause))
            choice = answer.choice
            why = f"{answer.by or 'somebody'} answered {choice}"
            if answer.reason:
                why += f": {answer.reason}"
        log.warning(
            "step.unknown", profile=run.profile, step=step.id, attempt=run.attempt, next=choice
        )
        if choice == "ask":
            await self._services.index.put(run.run_id, run.key)
            run.state, run.holder = "waiting", None
            await job.held.save(times.now_us())
            return choice
        if answer is not None:
            await self._services.index.end(run.run_id, run.key)
        step.error = f"{step.error}; {why}"
        if choice == "skip":
            step.state = "skipped"
        else:
            run.errors.append(_error(run, step.id, step.error, step.unknown_us))
        return choice

    async def _attempt(
        self, job: Job, profile: Profile, *, first: StepRecord | None = None
    ) -> float | None:
        run, event = job.held.run, job.events[-1].event
        if run.profile_hash != profile.hash:  # edited: today's definition, from the start
            run.profile_hash = profile.hash
            # but what was skipped because nobody knows how it went is not done after all
            # and what was under way elsewhere still is
            run.steps = [
                one
                for one in run.steps
                if (one.state == "skipped" and one.unknown_us)
                or (resumes(one) and one.saved)
                or asking.refused(one)
            ]
            for one in run.steps:  # who has said yes said it to the text of then; a no stays
                one.asked = tuple(asked for asked in one.asked if not asking.let_pass(asked))
        # whose it is now: another host may have begun it, and each publishes under its own name
        run.state, run.holder, run.host = "running", self._me, self._services.host
        began = time.monotonic()
        with traces.span(
            f"run {run.profile}",
            event.traceparent,
            kind="consumer",
            run_id=run.run_id,
            event_id=run.event_id,
            correlation_id=run.correlation_id,
            profile=run.profile,
            topic=run.topic,
            attempt=run.attempt,
        ) as span:
            failure = await self._steps(job, profile, first)
            if isinstance(failure, Failure):
                span.failed(f"step {failure.step} failed")
        run.duration_ms = round((time.monotonic() - began) * 1e3, 3)
        run.holder = None
        if isinstance(failure, Paused):
            await self._asker.ask(job, failure)
            return 0.0
        if failure is None:
            run.state = "succeeded"
            await self._telling.end(job.held, event)
            log.info(
                "run.succeeded",
                profile=run.profile,
                attempt=run.attempt,
                duration_ms=run.duration_ms,
            )
            return None
        now_us = times.now_us()
        run.errors.append(_error(run, failure.step, failure.error, now_us))
        policy = profile.retry
        if not failure.retryable or run.attempt >= policy.attempts:
            await self._dead(job, failure)
            return None
        delay = failure.retry_in_s
        if delay is None:
            delay = delay_s(policy, attempt=run.attempt, chance=random.random())  # noqa: S311
        run.state = "retrying"
        run.next_us = now_us + round(delay * 1e6)
        await self._telling.end(job.held, event)
        log.warning(
            "run.failed",
            profile=run.profile,
            attempt=run.attempt,
            error=failure.error,
            retry_in_s=delay,
        )
        return delay

    async def _steps(
        self, job: Job, profile: Profile, first: StepRecord | None
    ) -> Failure | Paused | None:
        main, held = job.events[-1], job.held
        around = Surroundings(
            event=main.event,
            events=[stored.event for stored in job.events],
            data=main.data,
            host=self._services.host,
            folder=self._services.workdirs / held.run.run_id,
            bundles=self._services.bundles,
            recent=self._services.recent,
            mesh=self._services.mesh,
            stored_us=main.stored_us,
            bundled=self._services.bundled.set,
            publish=self._services.publish,
            workdirs=self._services.workdirs,
            until=time.monotonic() + profile.timeout,
            redactor=self._services.redactor,
            secrets=self._services.secrets,
            shared=self._services.shared,
        )
        try:
            async with Lease(held, self._ledger.lease_s), asyncio.timeout(profile.timeout):
                return await attempt(profile, held, around, first=first)
        except TimeoutError:
            step = held.run.steps[-1] if held.run.steps else None
            error = f"the run took over {profile.timeout:g} s"
            if step is not None and step.state == "started":
                step.state, step.error = "failed", error
            return Failure(step=step.id if step else "", error=error)

    async def _dead(self, job: Job, failure: Failure) -> None:
        """Give a run up: that it is, its dead letter, and its end."""
        run = job.held.run
        if run.state != "failing":
            withdrawn = asking.withdraw(run, failure.error, now_us=times.now_us())
            run.state, run.reason, run.holder = "failing", failure.error, None
            await job.held.save(times.now_us())
            await self._asker.withdrawn(job, withdrawn)
        else:  # somebody was at it before: perhaps longer ago than the broker remembers ids
            run.dlq_seq = await self._letter(run)
        main = job.events[-1] if job.events else None
        if not run.dlq_seq:
            run.dlq_seq = await self._write_letter(run, main, failure)
        run.state = "deadlettered"
        await self._telling.end(job.held, main.event if main else None)
        log.error(
            "run.deadlettered",
            profile=run.profile,
            attempt=run.attempt,
            error=failure.error,
            dlq_seq=run.dlq_seq,
        )

    async def _letter(self, run: Run) -> int:
        """Where a run's dead letter lies; 0 when it has none."""
        since_us = max(0, run.updated_us - CLOCKS_US)
        found = 0
        async for letter in deadletter.letters(
            self._services.client, profile=run.profile, since_us=since_us
        ):
            if letter.run_id == run.run_id:
                found = letter.seq
        return found

    async def _write_letter(self, run: Run, main: Stored | None, failure: Failure) -> int:
        return await deadletter.write(
            self._services.client,
            profile=run.profile,
            profile_hash=run.profile_hash,
            host=main.event.host if main else run.host,
            topic=run.topic,
            data=main.data if main else b"",
            headers=main.headers if main else {},
            reason=failure.error,
            msg_id=f"dlq:{run.key}",
            event_id=run.event_id,
            errors=[msgspec.to_builtins(error) for error in run.errors],
            run_id=run.run_id,
            origin=(EVENTS, run.stream_seq, run.stored_us),
            events=run.events,
            redactor=self._services.redactor,
        )

    async def set_aside(
        self, job: Job, state: Literal["skipped", "cancelled"], reason: str
    ) -> None:
        """End a run that another one has no room for."""
        with logs.of_run(job.held.run.run_id, job.held.run.correlation_id):
            try:
                if not job.events:
                    job.events = await fetch(self._services.client, job.held.run)
            except Gone as gone:
                log.warning("run.not_set_aside", error=str(gone))
                return
            for _ in range(SAVE_TRIES):
                # the attempt may have been stopped between writing its record and hearing of it
                job.held = await read(job.held, self._ledger)
                run = job.held.run
                if run.finished:
                    return
                if (step := run.unsettled) is not None and step.state == "started":
                    lost(run, step, f"stopped while it was under way: {reason}")
                waited = run.state == "waiting"
                withdrawn = asking.withdraw(run, reason, now_us=times.now_us())
                run.state, run.reason, run.holder = state, reason, None
                with contextlib.suppress(Conflict):
                    await self._telling.end(job.held, job.events[-1].event)
                    if withdrawn is not None:
                        await self._asker.withdrawn(job, withdrawn)
                    elif waited:
                        await self._services.index.end(run.run_id, run.key)
                    log.info(f"run.{state}", profile=run.profile, reason=reason)
                    return

    async def release(self, job: Job) -> None:
        """Give a run that was stopped back at once: nobody has to wait for its lease."""
        run = job.held.run
        if run.state != "running" or run.holder is None or run.holder.id != self._me.id:
            return
        if (step := run.unsettled) is not None and step.state == "started":
            lost(run, step, f"the handler on {run.holder} was stopped while it was under way")
        run.holder = None
        with contextlib.suppress(Conflict):
            await job.held.save(times.now_us())


def _error(run: Run, step: str, error: str, at_us: int) -> AttemptError:
    return AttemptError(attempt=run.attempt, at_us=at_us, step=step, error=error)


def _exhausted(run: Run, step: StepRecord | None) -> Failure:
    if step is not None:
        return Failure(step=step.id, error=f"{step.error}, and no attempt is left")
    return Failure(step="", error=f"the handler ended during attempt {run.attempt}")
