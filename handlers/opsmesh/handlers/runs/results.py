"""Result events: what became of a run, in the same envelope as every other event.

They say what the ledger says, and are published after it is written (`telling`). Their ids are
derived from the run: whoever publishes one again publishes the same event.
"""

from __future__ import annotations

from typing import Any

from opsmesh.handlers.runs.ledger import Answer, Asked, Run, StepRecord
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, Severity

SOURCE = "opsmesh"
REQUESTED = "automation.approval.requested"


def of(run: Run, cause: Event) -> Event | None:
    """The event that tells what a run's record says, None for one that is under way: the same from
    whoever reads the record."""
    if run.state == "succeeded":
        return succeeded(run, cause, now_us=run.updated_us)
    if run.state == "retrying":
        delay = (run.next_us - run.errors[-1].at_us) / 1e6
        return failed(run, cause, now_us=run.updated_us, next_attempt_in_s=delay)
    if run.state == "deadlettered":
        return deadlettered(
            run, cause, now_us=run.updated_us, dlq_seq=run.dlq_seq, reason=run.reason
        )
    if run.state in ("skipped", "cancelled"):
        return set_aside(run, cause, now_us=run.updated_us)
    return None


def succeeded(run: Run, cause: Event, *, now_us: int) -> Event:
    """automation.run.succeeded"""
    payload = {**_about(run), "attempts": run.attempt}
    return _event(run, cause, "automation.run.succeeded", "info", payload, now_us)


def failed(run: Run, cause: Event, *, now_us: int, next_attempt_in_s: float | None) -> Event:
    """automation.run.failed: one attempt failed; without a next one the run is over."""
    payload = {**_about(run), "attempts": run.attempt, "error": _last_error(run)}
    if next_attempt_in_s is not None:
        payload["next_attempt_in_s"] = round(next_attempt_in_s, 3)
    severity: Severity = "warn" if next_attempt_in_s is not None else "error"
    return _event(run, cause, "automation.run.failed", severity, payload, now_us)


def deadlettered(run: Run, cause: Event, *, now_us: int, dlq_seq: int, reason: str) -> Event:
    """automation.run.deadlettered"""
    payload = {
        **_about(run),
        "attempts": run.attempt,
        "error": _last_error(run) or reason,
        "dlq_seq": dlq_seq,
    }
    return _event(run, cause, "automation.run.deadlettered", "error", payload, now_us)


def set_aside(run: Run, cause: Event, *, now_us: int) -> Event:
    """automation.run.skipped or automation.run.cancelled: another run had to go first."""
    payload = {**_about(run), "reason": run.reason}
    return _event(run, cause, f"automation.run.{run.state}", "info", payload, now_us)


def unknown(run: Run, step: StepRecord, cause: Event) -> Event:
    """automation.step.unknown: a handler ended, or lost the run, while this step was under way."""
    payload: dict[str, Any] = {
        **_which(run, step),
        "action": step.action,
        "on_unknown": step.on_unknown,
        "started_at": times.format_us(step.started_us),
    }
    if step.held_by is not None:
        payload |= {"held_by": step.held_by.host, "pid": step.held_by.pid}
    return _event(run, cause, "automation.step.unknown", "warn", payload, step.unknown_us, step.id)


def answered(run: Run, step: StepRecord, answer: Answer, cause: Event) -> Event:
    """automation.step.answered: a person has said how to go on."""
    payload = {
        **_which(run, step),
        "choice": answer.choice,
        "by": answer.by,
        "by_host": answer.host,
        "waited_s": round(max(0, answer.at_us - step.unknown_us) / 1e6, 3),
    }
    if answer.reason:
        payload["reason"] = answer.reason
    return _event(run, cause, "automation.step.answered", "info", payload, answer.at_us, step.id)


def asked(run: Run, step: StepRecord, asked: Asked, cause: Event) -> Event:
    """automation.approval.requested: a step waits for a person."""
    payload: dict[str, Any] = {
        **_which(run, step),
        "prompt": asked.prompt,
        "approval_id": asked.id,
        "otherwise": asked.otherwise,
    }
    if asked.expires_us:
        payload["expires_at"] = times.format_us(asked.expires_us)
    if asked.schema is not None:
        payload["answer_schema"] = asked.schema
    if asked.by:
        payload["may_answer"] = list(asked.by)
    return _event(run, cause, REQUESTED, "info", payload, asked.asked_us, asked.id)


def decided(run: Run, step: StepRecord, asked: Asked, cause: Event) -> Event:
    """automation.approval.granted, denied, expired or withdrawn: how a question ended."""
    reply = asked.reply
    if reply is None:
        raise ValueError(f"question {asked.id} is open")
    payload: dict[str, Any] = {
        **_which(run, step),
        "approval_id": asked.id,
        "waited_s": round(max(0, reply.at_us - asked.asked_us) / 1e6, 3),
    }
    said = {
        "by": reply.by,
        "by_host": reply.host,
        "via": reply.via,
        "comment": reply.comment,
        "answer": reply.answer,
        "otherwise": asked.otherwise if reply.verdict == "expired" else None,
    }
    payload |= {name: value for name, value in said.items() if value not in ("", None)}
    topic = f"automation.approval.{reply.verdict}"
    severity: Severity = "info" if reply.verdict == "granted" else "warn"
    return _event(run, cause, topic, severity, payload, reply.at_us, asked.id)


def refused(
    run: Run,
    step: StepRecord,
    asked: Asked,
    *,
    now_us: int,
    verdict: str,
    reason: str,
    by: str,
    by_host: str,
    via: str,
) -> Event:
    """automation.approval.refused: an answer was not taken. The same again within a minute is the
    same event: who knocks and knocks fills no stream."""
    said = {"verdict": verdict, "reason": reason, "by": by, "by_host": by_host, "via": via}
    minute_ms = now_us // 60_000_000 * 60_000
    event_id = ids.derived(minute_ms, asked.id, verdict, reason, by, by_host, via)
    return Event(
        topic="automation.approval.refused",
        ts_utc=times.format_us(now_us),
        source=SOURCE,
        component=run.profile,
        severity="warn",
        correlation_id=run.correlation_id,
        host=by_host,
        session_id="",
        workspace="",
        payload={
            "profile": run.profile,
            "step": step.id,
            "approval_id": asked.id,
            **{name: value for name, value in said.items() if value},
        },
        run_id=run.run_id,
        attempt=run.attempt,
        id=event_id,
        schema_version=SCHEMA_VERSION,
        causation_id=run.event_id,
        hops=1,
    )


def _which(run: Run, step: StepRecord) -> dict[str, Any]:
    return {
        "profile": run.profile,
        "profile_hash": run.profile_hash,
        "trigger_topic": run.topic,
        "trigger_id": run.event_id,
        "step": step.id,
    }


def _about(run: Run) -> dict[str, Any]:
    # the archive is sealed: what it says of a bundle's id, no later bundle can be
    bundles = [step.output["bundle"] for step in run.steps if "bundle" in step.output]
    return {
        "profile": run.profile,
        "profile_hash": run.profile_hash,
        "trigger_topic": run.topic,
        **({"trigger": run.trigger} if run.trigger != "event" else {}),
        **({} if (waited := waited_ms(run)) is None else {"waited_ms": waited}),
        **({"bundles": bundles} if bundles else {}),
        "steps": [
            {
                "id": step.id,
                "action": step.action,
                "outcome": step.state,
                "duration_ms": step.duration_ms,
            }
            for step in run.steps
        ],
    }


def waited_ms(run: Run) -> float | None:
    """From what fired the run to its first step: the first attempt alone knows it. A window's
    length is no waiting: then it is from its end."""
    if run.trigger != "event" or run.attempt != 1 or not run.steps or not run.stored_us:
        return None
    return round(max(0, run.steps[0].started_us - max(run.stored_us, run.due_us)) / 1e3, 3)


def _last_error(run: Run) -> str:
    return run.errors[-1].error if run.errors else ""


def _event(
    run: Run,
    cause: Event,
    topic: str,
    severity: Severity,
    payload: dict[str, Any],
    now_us: int,
    *about: str,
) -> Event:
    last = run.steps[-1] if run.steps else None
    return Event(
        topic=topic,
        ts_utc=times.format_us(now_us),
        source=SOURCE,
        component=run.profile,
        severity=severity,
        correlation_id=cause.correlation_id,
        host=run.host,
        session_id=cause.session_id,
        workspace=cause.workspace,
        payload=payload,
        run_id=run.run_id,
        attempt=run.attempt,
        exit_code=last.exit_code if last else None,
        duration_ms=run.duration_ms,
        evidence_path=run.evidence_path,
        id=_event_id(run, topic, *about),
        schema_version=SCHEMA_VERSION,
        causation_id=cause.id,
        hops=cause.hops + 1,
        traceparent=cause.traceparent,
    )


def _event_id(run: Run, topic: str, *about: str) -> str:
    return ids.derived(run.created_us // 1000, run.run_id, topic, str(run.attempt), *about)
