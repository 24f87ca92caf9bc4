"""Where a payload meets an action: an event that holds it, and the contract of an adaptor.

An adaptor puts the payload into every place of its action that takes a placeholder, runs it, and
compares what arrived with what was sent. It returns whatever the action gave back; the harness
looks through that for secrets, and at the canary.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.handlers.conftest import EVENT
from tests.handlers.hostile.canary import PRIVATE, SECRET, Canary

from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.actions.shared import Shared
from opsmesh.handlers.secrets.sources import Files
from opsmesh.handlers.secrets.store import SecretStore
from opsmesh.schemas.envelope import Event, encode
from opsmesh.schemas.exact import Known

#: Where a profile writes a value of the event.
X = "${{ event.payload.x }}"


@dataclass
class Stage:
    """What adaptors work with. The redactor knows no secret: nothing hides one that gets out."""

    canary: Canary
    monkeypatch: pytest.MonkeyPatch
    published: list[Event] = field(default_factory=list)
    shared: Shared = field(default_factory=Shared)
    _count: int = 0

    @property
    def folder(self) -> Path:
        """The canary's; a sandbox shows all of it, or nothing could leave a mark from inside."""
        return self.canary.folder

    def context(self, text: str, **more: Any) -> StepContext:
        """A step of a run of its own, of an event that holds the payload."""
        self._count += 1
        run_id = f"run{self._count}"
        payload = {text: [text], "x": text, "unit": text, "path": text, "tool": "git"}
        event = msgspec.structs.replace(EVENT, payload=payload)

        async def publish(event: Event) -> None:
            self.published.append(event)

        secrets = Files(self.folder / "kept")
        if not secrets.names():
            secrets.write("lamp", SECRET)
        facts: dict[str, Any] = {
            "event": event,
            "data": encode(event),
            "profile": "hostile",
            "profile_hash": "abc",
            "run_id": run_id,
            "step_id": "step",
            "attempt": 1,
            "idempotency_key": f"{run_id}:step",
            "variables": {
                "event": event.view(),
                "events": [event.view()],
                "steps": {"before": {"stdout": text}},
                "vars": {"private": PRIVATE},
                "run": {"id": run_id, "attempt": 1},
                "host": "dev",
            },
            "timeout": 20.0,
            "folder": self.folder.parent / "work" / run_id,
            "bundles": self.folder.parent / "bundles",
            "publish": publish,
            "host": "dev",
            "secrets": SecretStore([secrets], Known()),
            "shared": self.shared,
        }
        return StepContext(**{**facts, **more})


#: Runs the action with one payload; AssertionError when something else arrived.
Show = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True)
class Adaptor:
    """How one kind of action is shown payloads. `few`: how many of them without `--slow`."""

    action: str
    name: str
    few: int
    show: Callable[[Stage], AbstractAsyncContextManager[Show]]
