"""One attempt of a run: its steps in order, each written to the ledger before and after.

The write before a step carries the result of the one before it, so that a run of n steps costs
n + 1 writes; the one before the first step may be the run's intent (`first`). A step that the
ledger knows as started, but not as done, was under way when its holder was lost: `attempts` settles
that before it comes here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from opsmesh.handlers import figures, leash
from opsmesh.handlers.actions.contract import (
    MAX_SAVED,
    Mesh,
    NoMesh,
    NoSecrets,
    Question,
    Recent,
    Secrets,
    StepContext,
    StepResult,
    no_stream,
)
from opsmesh.handlers.actions.shared import Shared
from opsmesh.handlers.desktop.text import clean
from opsmesh.handlers.errors import Ask, TemplateError
from opsmesh.handlers.errors import Retry as RetryAsked
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.steps import Step
from opsmesh.handlers.runs import asking
from opsmesh.handlers.runs.ledger import Held, StepRecord
from opsmesh.handlers.runs.takeover import leash_path
from opsmesh.handlers.template import Template
from opsmesh.router import traces
from opsmesh.router.kv import Conflict
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event
from opsmesh.schemas.redact import Redactor, built_in

#: An action keeps its time limit itself, and then has output to show; one that does not is
#: cancelled so many seconds later.
CANCEL_AFTER = 5.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why an attempt failed; `retry_in_s` is set where the action asked for its own delay."""

    step: str
    error: str
    retryable: bool = True
    #: The run is given up, also where its step says `continue_on_error`.
    final: bool = False
    retry_in_s: float | None = None


def _nothing() -> None:
    """Nobody waits for bundles."""


@dataclass(frozen=True, kw_only=True)
class Paused:
    """A step cannot go on before somebody has answered; its record is among the run's."""

    record: StepRecord
    question: Question


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every step of an attempt shares. `events` are all events of a firing, the run's own
    event the last of them."""

    event: Event
    events: Sequence[Event]
    data: bytes
    host: str
    folder: Path
    bundles: Path
    publish: Callable[[Event], Awaitable[None]]
    #: Where the runs' private folders are, and what ties a step's programs together.
    workdirs: Path
    #: When the run is stopped, by `time.monotonic`.
    until: float | None = None
    redactor: Redactor = field(default_factory=built_in)
    secrets: Secrets = field(default_factory=NoSecrets)
    shared: Shared = field(default_factory=Shared)
    recent: Recent = no_stream
    mesh: Mesh = field(default_factory=NoMesh)
    #: When the run's own event was stored.
    stored_us: int = 0
    #: Called when a step has made a bundle.
    bundled: Callable[[], None] = _nothing


def begun(step: Step, now_us: int) -> StepRecord:
    """The record of a step that begins."""
    return StepRecord(
        id=step.id,
        action=step.action.key,
        state="started",
        started_us=now_us,
        on_unknown=step.on_unknown,
    )


def resumes(record: StepRecord) -> bool:
    """Whether a step that was interrupted, or has asked, goes on from what it saved."""
    return record.state == "asked" or (record.state == "unknown" and record.on_unknown == "resume")


async def attempt(
    profile: Profile, held: Held, around: Surroundings, *, first: StepRecord | None = None
) -> Failure | Paused | None:
    """Run every step that is not done yet; None when all are done. `first` is a step that is on
    record as started, and has not been."""
    run = held.run
    for step in profile.steps:
        known = run.step(step.id)
        if known is not None and known.state in ("done", "skipped"):
            continue
        ended: Failure | Paused | None = None
        record = known
        if record is None or record is not first:
            record = _anew(step, known)
            run.steps = [other for other in run.steps if other.id != step.id] + [record]
            ended = _gate(profile, step, record, held, around)
            if ended is None and record.state == "started":
                await held.save(record.started_us)
        if ended is None and record.state == "started":
            with (
                leash.on(leash_path(around.workdirs, run, step.id)),
                traces.span(f"step {step.id}", action=record.action) as span,
            ):
                ended = await _run(profile, step, record, held, around)
                span.set(outcome=record.state, exit_code=record.exit_code)
                if isinstance(ended, Failure):
                    span.failed(f"exit code {record.exit_code}" if record.exit_code else "failed")
        if isinstance(ended, Paused):
            return ended
        if ended is not None and (ended.final or not step.continue_on_error):
            return ended
    return None


def _anew(step: Step, known: StepRecord | None) -> StepRecord:
    """The record of a step that begins, with what is known of an earlier go."""
    record = begun(step, times.now_us())
    if known is None:
        return record
    if known.action != record.action:  # edited; who has refused the step has refused it
        if (gate := asking.gate_of(known)) is not None and asking.refused(known):
            record.asked = (gate,)
        return record
    if resumes(known):
        record.saved, record.asked = known.saved, known.asked
    elif (gate := asking.gate_of(known)) is not None:
        record.asked = (gate,)  # who has said yes said it for every attempt
    return record


def _gate(
    profile: Profile, step: Step, record: StepRecord, held: Held, around: Surroundings
) -> Failure | Paused | None:
    """What stands before the step; None and a record that is started when it may be run."""
    asked = asking.gate_of(record)
    if step.when is not None and asked is None:
        try:
            answer = Template("${{ " + step.when + " }}").render(_variables(profile, held, around))
        except TemplateError as error:
            record.state, record.error = "failed", str(error)
            return Failure(step=step.id, error=str(error), retryable=False)
        if answer is not True:
            record.state, record.error = "skipped", f"when: {step.when} is not true"
            return None
    if asked is None:
        if step.approve is None:
            return None
        try:
            prompt = Template(step.approve.prompt).render_text(_variables(profile, held, around))
        except TemplateError as error:
            record.state, record.error = "failed", str(error)
            return Failure(step=step.id, error=str(error), retryable=False)
        prompt = around.redactor.text(clean(prompt), context=held.run.run_id, path="$.prompt")
        return Paused(record=record, question=asking.gate(step.approve, prompt))
    outcome = asking.outcome(asked)
    if outcome == "skip":
        record.state, record.error = "skipped", asking.why(asked)
    elif outcome == "fail":
        record.state, record.error = "failed", asking.why(asked)
        return Failure(step=step.id, error=asking.why(asked), retryable=False)
    return None


async def _run(
    profile: Profile, step: Step, record: StepRecord, held: Held, around: Surroundings
) -> Failure | Paused | None:
    ctx = _context(profile, step, record, held, around)
    began = time.monotonic()
    asked: RetryAsked | None = None
    try:
        limit = None if step.timeout is None else step.timeout + CANCEL_AFTER
        async with asyncio.timeout(limit):
            result = await step.action.run(ctx)
    except TimeoutError:
        result = StepResult(
            ok=False, output={}, error=f"not done within {step.timeout:g} s", timed_out=True
        )
    except RetryAsked as retry:
        asked = retry
        result = StepResult(ok=False, output={}, error=str(retry))
    except Ask as ask:
        try:
            question = asking.checked(ask.question, record, around.redactor, place=ctx.place)
        except ValueError as error:
            why = f"its question cannot be put: {error}"
            result = StepResult(ok=False, output={}, error=why, retryable=False)
        else:
            record.duration_ms = round((time.monotonic() - began) * 1e3, 3)
            return Paused(record=record, question=question)
    except Conflict:  # what it saved was refused: the run is another handler's
        raise
    except Exception as error:
        # a third party's action: whatever it raises is its failure, not the handler's
        result = StepResult(ok=False, output={}, error=f"{type(error).__name__}: {error}")
    record.duration_ms = round((time.monotonic() - began) * 1e3, 3)
    # Whatever an action returns lies in the ledger, in result events and dead letters.
    (output, said), _ = around.redactor.redact((result.output, result.error), context=ctx.place)
    record.exit_code = result.exit_code
    record.output = output
    record.evidence_path = result.evidence_path
    record.error = said
    record.state = "done" if result.ok else "failed"
    figures.STEPS.add(record.action, record.state)
    figures.STEP_SECONDS.observe(record.duration_ms / 1e3, record.action)
    if result.evidence_path:
        held.run.evidence_path = result.evidence_path
        around.bundled()
    if result.ok:
        return None
    return Failure(
        step=step.id,
        error=said or "failed",
        retryable=result.retryable and not result.dead_letter,
        final=result.dead_letter,
        retry_in_s=asked.delay_s if asked else None,
    )


def _context(
    profile: Profile, step: Step, record: StepRecord, held: Held, around: Surroundings
) -> StepContext:
    run = held.run

    async def save(state: Mapping[str, Any]) -> None:
        size = len(msgspec.json.encode(state))
        if size > MAX_SAVED:
            raise ValueError(f"a step may save {MAX_SAVED} bytes, and not {size}")
        record.saved = dict(state)
        await held.save(times.now_us())

    return StepContext(
        event=around.event,
        data=around.data,
        profile=run.profile,
        profile_hash=run.profile_hash,
        run_id=run.run_id,
        step_id=step.id,
        attempt=run.attempt,
        idempotency_key=f"{run.run_id}:{step.id}",
        variables=_variables(profile, held, around),
        timeout=step.timeout,
        folder=around.folder,
        bundles=around.bundles,
        publish=around.publish,
        host=around.host,
        left=None if around.until is None else max(0.0, around.until - time.monotonic()),
        redactor=around.redactor,
        saved=record.saved,
        replies=asking.replies(record),
        save=save,
        secrets=around.secrets,
        shared=around.shared,
        recent=around.recent,
        mesh=around.mesh,
        stored_us=around.stored_us or around.event.ts_us,
    )


def _variables(profile: Profile, held: Held, around: Surroundings) -> Mapping[str, Any]:
    """The names that a `${{ CEL }}` placeholder may use."""
    steps = {
        step.id: {
            **step.output,
            "ok": step.state == "done",
            "exit_code": step.exit_code,
            "evidence_path": step.evidence_path,
            **_approval(step),
        }
        for step in held.run.steps
    }
    return {
        "event": around.event.view(),
        "events": [event.view() for event in around.events],
        "vars": profile.vars,
        "steps": steps,
        "run": {"id": held.run.run_id, "attempt": held.run.attempt},
        "host": around.host,
    }


def _approval(step: StepRecord) -> dict[str, Any]:
    asked = asking.gate_of(step)
    if asked is None or asked.reply is None:
        return {}
    reply = asked.reply
    return {"approval": {"verdict": reply.verdict, "by": reply.by, "answer": reply.answer}}
