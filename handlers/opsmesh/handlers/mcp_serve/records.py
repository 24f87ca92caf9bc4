"""Every call is an event, `agent.tool.called`: who asked for what and how it went, not the answer.

They go to the agent, or into the spool while it is away. What acts is recorded before it acts: when
that cannot be written down, it is not done.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, Literal

import msgspec
import structlog

from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.mcp_serve import untrusted
from opsmesh.router.client import Client
from opsmesh.schemas import ids, times
from opsmesh.schemas.redact import Redactor

Outcome = Literal["called", "ok", "failed", "refused", "cancelled"]
Transport = Literal["stdio", "http"]
Which = Literal["mcp", "checks"]

TOPIC: Final = "agent.tool.called"
#: Characters of one text of the arguments, and bytes of JSON of them all.
MAX_TEXT: Final = 300
MAX_ARGUMENTS: Final = 4096
#: Characters of an error.
MAX_ERROR: Final = 500
#: Records that wait to be written; beyond that the oldest trouble is the agent's.
MOST: Final = 1000

log = structlog.get_logger()


class NotRecorded(HandlersError):
    """Neither the agent nor the spool took the record, so nothing was done."""

    hint = "see what is wrong: opsmesh spool ls, opsmesh status"


class Records:
    """Writes the records of one server, one after the other, in a thread of its own."""

    def __init__(self, server: Which, *, transport: Transport, redactor: Redactor) -> None:
        self.server = server
        self.transport = transport
        self._redactor = redactor
        self._client = Client()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="records")
        self._waiting = 0

    def tell(self, tool: str, **facts: Any) -> str:
        """Have it recorded, whatever becomes of the caller; the record's id."""
        event_id, line = self._line(tool, **facts)
        if self._waiting >= MOST:
            log.error("record.dropped", tool=tool)
            return event_id
        self._submit(line, event_id)
        return event_id

    async def sure(self, tool: str, **facts: Any) -> str:
        """The same, and NotRecorded unless it is safe when this returns."""
        event_id, line = self._line(tool, **facts)
        try:
            answer = await asyncio.wrap_future(self._submit(line, event_id))
        except OSError as error:
            raise NotRecorded(f"the call cannot be recorded, so it was not made: {error}") from None
        reply = msgspec.json.decode(answer)
        if reply.get("ok") is not True:
            reason = reply.get("error", "refused")
            raise NotRecorded(f"the call cannot be recorded, so it was not made: {reason}")
        return event_id

    def close(self) -> None:
        """Return when everything is written."""
        self._writer.shutdown(wait=True)
        self._client.close()

    def _submit(self, line: bytes, event_id: str) -> Future[bytes]:
        self._waiting += 1
        written = self._writer.submit(self._client.deliver, line, event_id)
        written.add_done_callback(self._written)
        return written

    def _written(self, future: Future[bytes]) -> None:
        self._waiting -= 1
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("record.lost", error=str(error))

    def _line(
        self,
        tool: str,
        *,
        client: tuple[str, str],
        arguments: dict[str, Any],
        outcome: Outcome,
        error: str | None = None,
        duration_ms: float | None = None,
        cause: str | None = None,
    ) -> tuple[str, bytes]:
        event_id = ids.uuid7()
        asked, _ = self._redactor.redact(_short(arguments), context=event_id)
        payload: dict[str, Any] = {
            "server": self.server,
            "tool": untrusted.line(tool),
            "client": untrusted.line(client[0], 80),
            "client_version": untrusted.line(client[1], 40),
            "transport": self.transport,
            "arguments": asked,
            "outcome": outcome,
        }
        if error is not None:
            said = self._redactor.text(
                untrusted.text(error, MAX_ERROR), context=event_id, path="$.payload.error"
            )
            payload["error"] = said
        if duration_ms is not None:
            payload["duration_ms"] = round(duration_ms, 1)
        event = {
            "topic": TOPIC,
            "id": event_id,
            "ts_utc": times.format_us(times.now_us()),
            "source": "opsmesh",
            "component": f"{self.server}-serve",
            "severity": "info" if outcome in ("called", "ok", "cancelled") else "warn",
            "payload": payload,
        }
        if cause is not None:
            event |= {"correlation_id": cause, "causation_id": cause}
        return event_id, msgspec.json.encode(event)


def _short(arguments: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, small enough for a record."""
    kept = _texts(untrusted.clean({k: v for k, v in arguments.items() if v is not None}))
    if untrusted.size(kept) > MAX_ARGUMENTS:
        return {"cut": f"{untrusted.size(kept)} bytes", "names": sorted(map(str, kept))[:20]}
    return kept  # type: ignore[no-any-return]  # a mapping stays one


def _texts(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + untrusted.CUT
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return value
