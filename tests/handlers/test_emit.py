"""The action `emit`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import run
from tests.handlers.conftest import EVENT

from opsmesh.handlers.actions.contract import Action, StepContext
from opsmesh.handlers.actions.emit import Emit
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event, decode, encode

Context = Callable[..., StepContext]


def test_event(context: Context, published: list[Event]) -> None:
    """The event belongs to its cause's story, one hop further, and is a valid envelope."""
    action = Emit.parse(
        {
            "topic": "config.drift.detected",
            "severity": "warn",
            "payload": {"unit": "${{ event.payload.unit }}", "n": ["${{ vars.limit }}"]},
            "evidence_path": "${{ steps.evidence.path }}",
        }
    )
    assert isinstance(action, Action)
    result = run(action.run(context()))
    [event] = published
    assert result.ok
    assert result.output == {"id": event.id, "topic": "config.drift.detected"}
    assert event.payload == {"unit": "backup.service", "n": [3]}
    assert (event.correlation_id, event.causation_id, event.hops) == ("story", EVENT.id, 1)
    assert (event.severity, event.component, event.run_id) == ("warn", "triage", "run1")
    assert event.evidence_path == "/bundle"
    assert decode(encode(event)) == event


def test_same_id_again(context: Context, published: list[Event]) -> None:
    """A step that runs again publishes the same id, another step another one."""
    action = Emit.parse("a.b")
    for ctx in (context(), context(attempt=3), context(idempotency_key="run1:other")):
        run(action.run(ctx))
    first, again, other = (event.id for event in published)
    assert first == again != other
    assert ids.unix_ms(first) == EVENT.ts_us // 1000


def test_whole_payload(context: Context, published: list[Event]) -> None:
    """A payload may be one placeholder that gives a mapping."""
    run(Emit.parse({"topic": "a.b", "payload": "${{ event.payload }}"}).run(context()))
    assert published[0].payload == EVENT.payload


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"topic": "a.b", "payload": "${{ vars.limit }}"}, "the payload became 3, not a mapping"),
        ({"topic": "a.b", "severity": "${{ host }}"}, "severity 'dev' is not one of"),
        ({"topic": "a.b", "payload": {"x": "${{ event.x }}"}}, "${{ event.x }}: no field"),
        ({"topic": "a.b", "payload": {"x": "y" * 300_000}}, "payload of 300008 bytes exceeds"),
    ],
)
def test_hopeless(context: Context, published: list[Event], value: Any, said: str) -> None:
    """What cannot become an event is not retried, says why, and publishes nothing."""
    result = run(Emit.parse(value).run(context()))
    assert (result.ok, result.retryable, published) == (False, False, [])
    assert result.error is not None
    assert result.error.startswith(said)


@pytest.mark.parametrize(
    "value",
    [
        {},
        "Bad",
        {"topic": "a.${{ host }}"},
        {"topic": "a.b", "severity": "bad"},
        {"topic": "a.b", "payload": 3},
    ],
)
def test_refused(value: Any) -> None:
    """What could never be published is refused when the profile is loaded."""
    with pytest.raises(ValueError):
        Emit.parse(value)
