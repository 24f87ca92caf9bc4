"""Makes events: whole envelopes, numbered, with what those of one run have in common."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timezone

from . import clock, session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


#: Half of a pair of surrogates; whole pairs are one character to Python.
_HALF = re.compile("[\ud800-\udfff]")


class Events:
    """The events of one run of `source`. What `opsmesh exec` or a handler says of the run is kept:
    its id, and what caused it."""

    def __init__(self, source: str, env: Mapping[str, str] = os.environ) -> None:
        self.source = source
        self.run_id = env.get("OPSMESH_RUN_ID") or uuid7()
        hops = env.get("OPSMESH_HOPS", "")
        self._common: dict[str, Any] = {
            "source": source,
            "correlation_id": env.get("OPSMESH_CORRELATION_ID") or self.run_id,
            "session_id": session.of_environment(env),
            "run_id": self.run_id,
            "causation_id": env.get("OPSMESH_EVENT_ID"),
            "hops": int(hops) if hops.isdecimal() else None,
            "schema_version": "1.0",
            "boot_id": uuid7(),
            "_reply": True,
        }
        self._seq = 0

    def make(
        self,
        topic: str,
        payload: Mapping[str, Any],
        *,
        component: str,
        workspace: str,
        severity: str | None = None,
        duration_ms: float | None = None,
    ) -> tuple[str, bytes]:
        """The event's id, and its line for the agent and the spool; what is None is left out."""
        event_id = uuid7()
        self._seq += 1  # whatever becomes of it: a number that is missing is an event that is
        event = {
            "topic": topic,
            "ts_utc": now(),
            "component": component,
            "workspace": workspace,
            "severity": severity,
            "duration_ms": duration_ms,
            "id": event_id,
            "seq": self._seq,
            "payload": {name: value for name, value in payload.items() if value is not None},
            **self._common,
        }
        known = {name: value for name, value in event.items() if value is not None}
        return event_id, _line(known)


def _line(event: Mapping[str, Any]) -> bytes:
    """As JSON. What a test says may hold bytes of a file's name that are no UTF-8: lone surrogates
    to Python, which no reader of JSON takes, and which are shown by their numbers."""
    text = json.dumps(event, ensure_ascii=False)
    return _HALF.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text).encode()


def now() -> str:
    """The time as the envelope has it."""
    moment = datetime.fromtimestamp(clock.now_ns() / 1e9, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def uuid7() -> str:
    """An id that sorts by its time (RFC 9562)."""
    value = clock.now_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
