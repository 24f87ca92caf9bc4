"""The contract between a producer and the process that runs it.

A producer watches one tool and calls `emit`; it never sees NATS, the spool or a socket. It is found
through the entry point group `opsmesh.producers`: any callable that gives a `Producer`. Keyword
parameters of that callable, if it has any, are its options (`producer run NAME -o key=value`); each
is given as text and must have a default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from opsmesh.producers.errors import Refused as Refused


class Emit(Protocol):
    """Hand one event to the mesh."""

    def __call__(
        self,
        topic: str,
        payload: Mapping[str, Any],
        *,
        severity: str | None = None,
        ts_us: int | None = None,
        id: str | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        hops: int | None = None,
        component: str | None = None,
        session: str | None = None,
        workspace: str | None = None,
        run_id: str | None = None,
        exit_code: int | None = None,
        duration_ms: float | None = None,
        evidence_path: str | None = None,
    ) -> str:
        """The event's id, once the agent has acknowledged the event or the spool holds it.

        A fact that may be read twice is given a derived `id`, so that it is stored once. Raises
        Refused when the agent will never take the event; what `severity` is not given is the
        topic's own. `session` and `workspace` are as docs/sessions.md has them; unless given, a
        producer's session is the login session, and there is no workspace.
        """
        ...


class Producer(Protocol):
    """One tool's watcher."""

    @property
    def name(self) -> str:
        """One token; also the `source` of its events."""
        ...

    @property
    def description(self) -> str:
        """One line for `producer ls`."""
        ...

    @property
    def topics(self) -> Sequence[str]:
        """Every topic it may emit."""
        ...

    def available(self) -> str | None:
        """None when it can run here, else the reason why not. Cheap, and starts nothing."""
        ...

    def run(self, emit: Emit) -> None:
        """Watch until told to stop. SIGTERM arrives as SystemExit: clean up in `finally`."""
        ...
