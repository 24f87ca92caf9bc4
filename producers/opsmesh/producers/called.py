"""What a command that somebody calls tells of what it found: an event of the session, the run and
the cause that it was called in. The mesh never fails the command, and never holds it up for long.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opsmesh.producers.errors import Refused
from opsmesh.producers.host import Host
from opsmesh.router import session
from opsmesh.router.client import Client

#: Seconds that an event may wait for the agent's answer before the spool takes it.
ANSWER: Final = 1.0
#: And after the first that waited for nothing: an agent that hangs does so for the next ones, too.
HANGS: Final = 0.05
#: What a mesh raises that can take an event neither now nor later.
LOST: Final = (OSError, ValueError, Refused)


class Teller:
    """Sends events as the producer `name`."""

    def __init__(self, name: str, env: Mapping[str, str] = os.environ) -> None:
        self._client = Client(timeout=ANSWER)
        self._host = Host(name, client=self._client, patient=False)
        self._env = env

    def tell(self, topic: str, payload: Mapping[str, Any], **more: Any) -> str:
        """As `emit`; where the event cannot be kept, a line says so, and the id is empty."""
        try:
            return self.emit(topic, payload, **more)
        except LOST as error:
            not_kept(error)
            return ""

    def emit(self, topic: str, payload: Mapping[str, Any], **more: Any) -> str:
        """See `contract.Emit`; raises one of LOST where the event can be kept nowhere."""
        env = self._env
        hops = env.get("OPSMESH_HOPS", "")
        called = {
            "session": session.of_environment(env),
            "run_id": env.get("OPSMESH_RUN_ID"),
            "correlation_id": env.get("OPSMESH_CORRELATION_ID"),
            "causation_id": env.get("OPSMESH_EVENT_ID"),
            "hops": int(hops) if hops.isdecimal() else None,
        }
        started = time.monotonic()
        try:
            return self._host.emit(topic, payload, **{**called, **more})
        finally:
            if time.monotonic() - started >= ANSWER:
                self._client.timeout = HANGS

    def close(self) -> None:
        """Let go of the agent."""
        self._client.close()


def not_kept(error: Exception) -> None:
    """Say it; what the command found is worth as much without."""
    print(f"the event was not kept: {error}", file=sys.stderr)


@contextmanager
def teller(name: str) -> Iterator[Teller]:
    """A Teller, for as long as the command has something to say."""
    made = Teller(name)
    try:
        yield made
    finally:
        made.close()
