"""The view as the page reads it: plain values, times in milliseconds since the epoch.

The one rule: what a list shows is short. The whole of an event or a run is asked for by its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from opsmesh.cli.approvals import record as approval_record
from opsmesh.cli.events import gist
from opsmesh.cli.view.model import Heard, ProfileView, SeenEvent, View
from opsmesh.handlers.runs.ledger import Run, StepRecord
from opsmesh.handlers.slo.book import described
from opsmesh.router.deadletter import Letter

#: Characters of a reason, or of an error, in a list.
SHORT: Final = 300
#: Letters that are listed, the newest.
LETTERS: Final = 500
#: Seconds of the rate.
SECONDS: Final = 120


def event(seen: SeenEvent) -> dict[str, Any]:
    """A line of the list of events."""
    found: dict[str, Any] = {"seq": seen.seq, "at": seen.stored_us / 1e3}
    if seen.event is None:
        return {**found, "topic": seen.subject, "severity": "error", "error": seen.error[:SHORT]}
    one = seen.event
    return {
        **found,
        "id": one.id,
        "topic": one.topic,
        "severity": one.severity,
        "host": one.host,
        "source": one.source,
        "workspace": one.workspace,
        "correlation": one.correlation_id,
        "gist": gist(one.payload),
    }


def run(one: Run) -> dict[str, Any]:
    """A line of the list of runs."""
    return {
        "id": one.run_id,
        "profile": one.profile,
        "state": one.state,
        "topic": one.topic,
        "event": one.event_id,
        "correlation": one.correlation_id,
        "host": one.host,
        "trigger": one.trigger,
        "created": one.created_us / 1e3,
        "updated": one.updated_us / 1e3,
        "attempt": one.attempt,
        "took_ms": one.duration_ms,
        "latency_ms": _latency_ms(one),
        "reason": one.reason[:SHORT] or (one.errors[-1].error[:SHORT] if one.errors else ""),
        "steps": [_step(step) for step in one.steps],
    }


def _latency_ms(one: Run) -> float | None:
    """From the event that was stored, or the end of its window, to the first step; of the first
    attempt alone, whose steps are known."""
    since_us = one.due_us or one.stored_us
    if one.trigger != "event" or one.attempt > 1 or not one.steps or not since_us:
        return None
    return max(one.steps[0].started_us - since_us, 0) / 1e3


def _step(one: StepRecord) -> dict[str, Any]:
    return {
        "id": one.id,
        "action": one.action,
        "state": one.state,
        "took_ms": one.duration_ms,
        "exit_code": one.exit_code,
        "error": (one.error or "")[:SHORT],
    }


def sections(view: View, now_us: int) -> Iterator[tuple[str, Any]]:
    """Everything but events and runs, by name; each is sent when it is another than before."""
    yield "health", _health(view)
    yield "rates", view.rates(now_us, seconds=SECONDS)
    yield "profiles", [profile(one) for one in view.profiles.values()]
    yield "approvals", [approval_record(one) for one in view.approvals]
    yield "letters", [letter(one) for one in list(view.letters)[-LETTERS:]]
    yield "letters_total", len(view.letters)
    yield "producers", _heard(view.producers)
    yield "hosts", _heard(view.hosts)


def _health(view: View) -> dict[str, Any]:
    found = view.health
    return {
        "of": view.of,
        "connected": view.connected,
        "verdict": view.verdict,
        "problems": list(view.problems),
        "notes": list(view.notes),
        "facts": list(view.facts),
        "components": list(view.components),
        "streams": found.streams if found else {},
    }


def profile(one: ProfileView) -> dict[str, Any]:
    """A profile as it stands."""
    return {
        "name": one.name,
        "kind": one.kind,
        "state": one.state,
        "verdict": one.verdict,
        "detail": one.detail,
        "fix": one.fix,
        "waiting": one.waiting,
        "asking": one.asking,
        "runs": one.runs,
        "succeeded": one.succeeded,
        "failed": one.failed,
        "false_positives": one.false_positives,
        "last": one.last_us / 1e3,
        "objectives": [{**described(each), "verdict": each.verdict} for each in one.objectives],
    }


def letter(one: Letter) -> dict[str, Any]:
    """A line of the list of dead letters."""
    return {
        "seq": one.seq,
        "at": one.stored_us / 1e3,
        "profile": one.profile,
        "topic": one.topic,
        "event": one.event_id,
        "run": one.run_id,
        "host": one.host,
        "reason": one.reason[:SHORT],
        "attempts": len(one.errors),
    }


def _heard(names: dict[str, Heard]) -> list[dict[str, Any]]:
    return [
        {"name": name, "topic": one.topic, "last": one.last_us / 1e3, "count": one.count}
        for name, one in sorted(names.items())
    ]
