"""One profile, live: a message becomes a decision, a decision a run, a run an outcome.

Everything that must not be lost is written before the broker may forget the message: the run's
ledger entry when the decision is to fire, the dead letter and the result event at its end.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from nats.aio.client import Client

from opsmesh.handlers import results
from opsmesh.handlers.ledger import AttemptError, Held, Ledger, Run
from opsmesh.handlers.profiles import Profile
from opsmesh.handlers.steps import Failure, Surroundings, attempt
from opsmesh.handlers.windows import Windows
from opsmesh.router import deadletter
from opsmesh.router.consume import Ack, Message, Outcome, Reject, Retry, Work
from opsmesh.router.decide import Decision, Rule, State, Window, decide, match
from opsmesh.router.kv import Conflict
from opsmesh.router.retry import delay_s
from opsmesh.router.topology import EVENTS, TRIGGERS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.registry import Registry

#: A run of a profile that was disabled meanwhile looks again after this many seconds.
DISABLED_DELAY = 60.0
#: A message that the handler itself has failed on this often is given up, and dead-lettered.
GIVE_UP = 10
#: Compare-and-set attempts on a debounce window before the message is put back.
WINDOW_TRIES = 5

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Services:
    """What every runner of a handler process shares."""

    client: Client
    ledger: Ledger
    windows: Windows
    registry: Registry
    host: str
    bundles: Path
    workdirs: Path
    publish: Callable[[Event], Awaitable[None]]
    record: Callable[[Decision, Message], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One event before one profile. `stored` is where the event itself lies: (stream, sequence,
    microseconds since the epoch); `trigger` is set when it was sent to this profile by hand."""

    event: Event
    message: Message
    stored: tuple[str, int, int]
    trigger: Trigger | None = None


class ProfileRunner:
    """Handles the messages of one profile; `profile` may be exchanged while it runs."""

    def __init__(self, profile: Profile, services: Services) -> None:
        self.profile = profile
        self._services = services
        self._log = log.bind(profile=profile.name)

    async def handle(self, message: Message) -> Outcome | Work:
        """A message of EVENTS."""
        return await self._guarded(message, (EVENTS, message.seq, message.stored_us), None)

    async def handle_trigger(self, message: Message, trigger: Trigger) -> Outcome | Work:
        """A message of TRIGGERS: one event, for this profile alone."""
        stored = trigger.origin or (TRIGGERS, message.seq, message.stored_us)
        return await self._guarded(message, stored, trigger)

    async def _guarded(
        self, message: Message, stored: tuple[str, int, int], trigger: Trigger | None
    ) -> Outcome | Work:
        try:
            return await self._handle(message, stored, trigger)
        except Exception as error:
            # Nearly always the broker, which will be back; what fails for ever must not block.
            if message.delivery.num_delivered < GIVE_UP:
                raise
            await self._give_up(message, stored, f"{type(error).__name__}: {error}")
            return Reject("given up")

    async def _handle(
        self, message: Message, stored: tuple[str, int, int], trigger: Trigger | None
    ) -> Outcome | Work:
        try:
            event = self._services.registry.upcast(decode(message.data, stored=stored))
        except SchemaError as error:
            await self._give_up(message, stored, f"undecodable: {error}")
            return Reject("undecodable")
        case = Case(event=event, message=message, stored=stored, trigger=trigger)
        run = self._new_run(case)
        if message.delivery.num_delivered > 1:
            held = await self._services.ledger.get(run.key)
            if held is not None:
                return self._resume(held, case)
        decision, window, revision = await self._decide(case)
        if decision.outcome != "fire":
            await self._services.record(decision, message)
            return Ack()
        held = await self._services.ledger.create(run)
        if held is None:
            return await self._again(run.key, case)
        if window is not None:
            try:
                await self._services.windows.write(self.profile.rule(), event, window, revision)
            except Conflict:  # two handlers opened the same burst; both of their runs are on record
                self._log.warning("window.conflict", event_id=event.id)
        await self._services.record(decision, message)
        return self._work(held, case)

    def _new_run(self, case: Case) -> Run:
        event, message = case.event, case.message
        now_us = times.now_us()
        trigger_id = case.trigger.id if case.trigger else ""
        return Run(
            run_id=ids.derived(message.stored_us // 1000, self.profile.name, event.id, trigger_id),
            profile=self.profile.name,
            profile_hash=self.profile.hash,
            event_id=event.id,
            topic=event.topic,
            correlation_id=event.correlation_id,
            host=self._services.host,
            stream_seq=message.seq,
            created_us=now_us,
            updated_us=now_us,
            trigger=case.trigger.kind if case.trigger else "event",
            trigger_id=trigger_id,
        )

    async def _decide(self, case: Case) -> tuple[Decision, Window | None, int]:
        """The decision, and the window to write (None: nothing changed) over its revision."""
        event, rule, host = case.event, self.profile.rule(), self._services.host
        now_us = case.message.stored_us
        if case.trigger is not None:
            return _triggered(rule, event, case.trigger, now_us, host), None, 0
        if rule.debounce is None or match(rule, event, host=host) is not None:
            decision, _ = decide(rule, event, State(), now_us=now_us, host=host)
            return decision, None, 0
        for _ in range(WINDOW_TRIES):
            window, revision = await self._services.windows.read(rule, event)
            decision, state = decide(rule, event, State(window=window), now_us=now_us, host=host)
            if state.window is None or state.window == window:
                return decision, None, revision
            if decision.outcome == "fire":
                return decision, state.window, revision
            try:
                await self._services.windows.write(rule, event, state.window, revision)
                return decision, None, revision
            except Conflict:
                continue
        raise Conflict(f"debounce window of {rule.name}")

    async def _again(self, key: str, case: Case) -> Outcome | Work:
        """The run was there before: resume our own, leave another message's alone."""
        held = await self._services.ledger.get(key)
        if held is not None and held.run.stream_seq == case.message.seq:
            return self._resume(held, case)
        decision, _ = decide(
            self.profile.rule(),
            case.event,
            State(seen=True),
            now_us=case.message.stored_us,
            host=self._services.host,
        )
        await self._services.record(decision, case.message)
        return Ack()

    def _resume(self, held: Held, case: Case) -> Outcome | Work:
        if held.run.finished or held.run.stream_seq != case.message.seq:
            return Ack()
        if self.profile.state == "disabled":  # queued work waits; it is never dead-lettered for it
            return Retry(DISABLED_DELAY)
        return self._work(held, case)

    async def _work(self, held: Held, case: Case) -> Outcome:
        try:
            with structlog.contextvars.bound_contextvars(
                run_id=held.run.run_id, correlation_id=case.event.correlation_id
            ):
                return await self._attempt(held, case)
        except Conflict:
            # another handler has taken this run over; it settles its own delivery
            self._log.warning("run.taken_over", run_id=held.run.run_id)
            return Ack()

    async def _attempt(self, held: Held, case: Case) -> Outcome:
        run, profile, event = held.run, self.profile, case.event
        policy = profile.retry
        if run.attempt >= policy.attempts:
            error = f"the handler ended during attempt {run.attempt}"
            return await self._dead(held, case, Failure(step="", error=error))
        if run.profile_hash != profile.hash:  # edited meanwhile: today's definition, from the start
            run.profile_hash = profile.hash
            run.steps = []
        run.attempt += 1
        run.state = "running"
        began = time.monotonic()
        failure = await self._steps(held, case)
        run.duration_ms = round((time.monotonic() - began) * 1e3, 3)
        now_us = times.now_us()
        if failure is None:
            run.state = "succeeded"
            await self._clean(run)
            await self._services.publish(results.succeeded(run, event, now_us=now_us))
            await held.save(now_us)
            self._log.info("run.succeeded", attempt=run.attempt, duration_ms=run.duration_ms)
            return Ack()
        run.errors.append(
            AttemptError(attempt=run.attempt, at_us=now_us, step=failure.step, error=failure.error)
        )
        if not failure.retryable or run.attempt >= policy.attempts:
            return await self._dead(held, case, failure)
        delay = failure.retry_in_s
        if delay is None:
            delay = delay_s(policy, attempt=run.attempt, chance=random.random())  # noqa: S311
        run.state = "retrying"
        await self._services.publish(
            results.failed(run, event, now_us=now_us, next_attempt_in_s=delay)
        )
        await held.save(now_us)
        self._log.warning("run.failed", attempt=run.attempt, error=failure.error, retry_in_s=delay)
        return Retry(delay)

    async def _steps(self, held: Held, case: Case) -> Failure | None:
        workdir = self._services.workdirs / held.run.run_id
        await asyncio.to_thread(workdir.mkdir, mode=0o700, parents=True, exist_ok=True)
        around = Surroundings(
            event=case.event,
            data=case.message.data,
            host=self._services.host,
            workdir=workdir,
            bundles=self._services.bundles,
            publish=self._services.publish,
        )
        try:
            async with asyncio.timeout(self.profile.timeout):
                return await attempt(self.profile, held, around)
        except TimeoutError:
            step = held.run.steps[-1].id if held.run.steps else ""
            return Failure(step=step, error=f"the run took over {self.profile.timeout:g} s")

    async def _clean(self, run: Run) -> None:
        """A finished run's private folder goes; evidence bundles lie elsewhere."""
        await asyncio.to_thread(
            shutil.rmtree, self._services.workdirs / run.run_id, ignore_errors=True
        )

    async def _dead(self, held: Held, case: Case, failure: Failure) -> Outcome:
        run, event = held.run, case.event
        seq = await deadletter.write(
            self._services.client,
            profile=run.profile,
            profile_hash=run.profile_hash,
            host=event.host,
            topic=event.topic,
            data=case.message.data,
            headers=case.message.headers,
            reason=failure.error,
            msg_id=f"dlq:{run.key}",
            event_id=event.id,
            errors=[msgspec.to_builtins(error) for error in run.errors],
            run_id=run.run_id,
            origin=case.stored,
        )
        await self._clean(run)
        now_us = times.now_us()
        run.state = "deadlettered"
        await self._services.publish(
            results.deadlettered(run, event, now_us=now_us, dlq_seq=seq, reason=failure.error)
        )
        await held.save(now_us)
        self._log.error("run.deadlettered", attempt=run.attempt, error=failure.error, dlq_seq=seq)
        return Reject("dead-lettered")

    async def _give_up(self, message: Message, stored: tuple[str, int, int], reason: str) -> None:
        """Dead-letter a message that never came to a run."""
        # evt.<host>.<topic>: what the subject says is all that is known of it
        host, _, topic = message.subject.removeprefix("evt.").partition(".")
        await deadletter.write(
            self._services.client,
            profile=self.profile.name,
            profile_hash=self.profile.hash,
            host=host,
            topic=topic or "undecodable",
            data=message.data,
            headers=message.headers,
            reason=reason,
            msg_id=f"dlq:{self.profile.name}:{stored[0]}:{stored[1]}",
            origin=stored,
        )
        self._log.error("event.given_up", seq=message.seq, reason=reason)


def _triggered(rule: Rule, event: Event, trigger: Trigger, now_us: int, host: str) -> Decision:
    """A replay is decided by event and rule alone; a person's own trigger always fires."""
    rule = msgspec.structs.replace(rule, debounce=None)
    decision, _ = decide(rule, event, State(), now_us=now_us, host=host)
    if trigger.kind == "replay":
        return decision
    return msgspec.structs.replace(
        decision, outcome="fire", clause="trigger", reason=f"triggered: {trigger.kind}", values={}
    )
