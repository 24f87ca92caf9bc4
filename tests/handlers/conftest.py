"""A step's context, with what it published, and the desktop that it speaks to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.handlers import session_bus
from tests.handlers.session_bus import Desktop

from opsmesh.handlers.actions.contract import StepContext
from opsmesh.schemas.envelope import Event, encode

EVENT = Event(
    topic="service.start.failed",
    ts_utc="2026-11-23T09:12:00.123456Z",
    source="journal",
    component="systemd",
    severity="error",
    correlation_id="story",
    host="dev",
    session_id="1",
    workspace="",
    payload={"unit": "backup.service", "manager": "user", "exit_code": 1, "lines": ["a", "b"]},
    id="019ab000-0000-7000-8000-000000000001",
)


@pytest.fixture
def published() -> list[Event]:
    """What actions published, in order."""
    return []


@pytest.fixture
def context(tmp_path: Path, published: list[Event]) -> Callable[..., StepContext]:
    """Makes contexts for a step of one run; keyword arguments replace its facts."""

    async def publish(event: Event) -> None:
        published.append(event)

    def make(*, event: Event = EVENT, **changes: Any) -> StepContext:
        workdir = tmp_path / "work"
        facts: dict[str, Any] = {
            "event": event,
            "data": encode(event),
            "profile": "triage",
            "profile_hash": "abc",
            "run_id": "run1",
            "step_id": "step",
            "attempt": 2,
            "idempotency_key": "run1:step",
            "variables": {
                "event": event.view(),
                "steps": {"evidence": {"path": "/bundle"}},
                "vars": {"limit": 3},
                "run": {"id": "run1", "attempt": 2},
                "host": "dev",
            },
            "timeout": None,
            "folder": workdir,
            "bundles": tmp_path / "bundles",
            "publish": publish,
            "host": "dev",
        }
        return StepContext(**{**facts, **changes})

    return make


@pytest.fixture(scope="module")
def bus() -> Iterator[Desktop]:
    """One bus and one daemon for the tests of a module that do not end them."""
    session_bus.required()
    with tempfile.TemporaryDirectory() as folder, session_bus.running(Path(folder)) as desktop:
        desktop.start_daemon()
        yield desktop


@pytest.fixture
def desktop(bus: Desktop, home: Path, monkeypatch: pytest.MonkeyPatch) -> Desktop:
    """The desktop of this test."""
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", bus.address)
    bus.forget()
    return bus
