"""The action `emit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import run
from tests.handlers.conftest import EVENT
from tests.handlers.mesh import mesh

from opsmesh.handlers.actions.contract import Action, StepContext
from opsmesh.handlers.actions.emit import Emit
from opsmesh.handlers.testing import Profiles
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.testing import MemoryMesh
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


TOPICS = """
profiles:
  p:
    on: room.got_hot
    actions: [emit: {{topic: {topic}, payload: {payload}}}]
"""


@pytest.mark.parametrize(
    ("topic", "payload", "strict", "said"),
    [
        ("config.drift.detected", "{tool: 3}", False, "payload of config.drift.detected: "),
        ("config.drift.detected", "{tool: stow, paths: []}", True, None),
        ("room.cooled", "{}", False, None),
        ("room.cooled", "{}", True, "topic room.cooled is not registered, and strict_topics"),
    ],
)
def test_a_payload_that_does_not_fit(
    tmp_path: Path, topic: str, payload: str, strict: bool, said: str | None
) -> None:
    """A step cannot publish what the mesh would take from nobody else."""
    (tmp_path / "p.yaml").write_text(TOPICS.format(topic=topic, payload=payload))
    memory = MemoryMesh()
    profiles = Profiles.load(tmp_path / "p.yaml", memory)
    memory.emit("room.got_hot")
    memory.strict_topics = strict
    ran = profiles.act(profiles.fired()[0])
    assert (ran.steps[0].state == "done") is (said is None)
    assert (ran.steps[0].error or "").startswith(said or "")
    assert len(memory.events(topic)) == (said is None)


def test_live_payloads_are_checked(nats_server: EmbeddedServer) -> None:
    """In a running mesh such a step is not tried again, and its run is a dead letter."""

    async def body() -> None:
        text = TOPICS.format(topic="config.drift.detected", payload="{tool: 3}")
        async with mesh(text) as m:
            await m.publish("room.got_hot")
            [dead] = await m.wait("automation.run.deadlettered")
            assert dead.payload["attempts"] == 1
            assert "config.drift.detected" in dead.payload["error"]

    run(body())


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
