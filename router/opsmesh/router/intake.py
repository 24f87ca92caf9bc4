"""What becomes of one line: a message to store, or the reason why it is none.

The one rule: a line that has been through here once comes out the same the second time (same id,
same time, same bytes), so that a spooled event can be sent again.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Final

import msgspec
import structlog

from opsmesh.router import redaction, traces
from opsmesh.router.metrics import figures
from opsmesh.router.settings import Settings
from opsmesh.schemas import cloudevents, envelope, ids, times
from opsmesh.schemas.errors import EnvelopeError, SchemaError
from opsmesh.schemas.redact import Redactor
from opsmesh.schemas.registry import Registry

#: Keys of a line that speak to the agent and are never stored.
REPLY, COERCE = "_reply", "_coerce"
#: Longest id: it is a header of the message.
MAX_ID: Final = 128
#: Longest subject: the broker ends a connection that sends a command of more than 4 KiB.
MAX_SUBJECT: Final = 512
#: Largest event: the broker takes 1 MiB with headers.
MAX_EVENT: Final = 1024 * 1024 - 4096
#: The header of an event whose topic nobody has registered.
UNREGISTERED: Final = {"Opsmesh-Unregistered": "1"}
#: Unregistered topics that are remembered, so that each is logged once.
MAX_REMEMBERED: Final = 10_000

_ASKS_REPLY = re.compile(rb'"_reply"\s*:\s*true')

log = structlog.get_logger()


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it goes to the broker; `reply`: its sender waits for an answer."""

    subject: str
    data: bytes
    id: str
    source: str = ""
    topic: str = ""
    traceparent: str | None = None
    reply: bool = False
    headers: dict[str, str] | None = None


class Intake:
    """Completes, checks and redacts; knows this host's defaults."""

    def __init__(
        self, settings: Settings, registry: Registry, redactor: Redactor | None = None
    ) -> None:
        self._registry = registry
        self.redactor = redactor or redaction.redactor(settings.redact)
        self._strict = settings.strict_topics
        self._defaults = {
            "host": settings.host,
            "session_id": os.environ.get("XDG_SESSION_ID", ""),
            "workspace": "",
            "source": "ingest",
            "component": "ingest",
        }
        self._seen: set[str] = set()

    def message(self, line: bytes, *, topic: str = "") -> Message:
        """The message in a line of JSON, an event or a CloudEvent; SchemaError when it is neither.
        `topic`: where a CloudEvent was sent to, which goes before its type."""
        raw = envelope.raw_fields(line)
        reply = bytes(raw.pop(REPLY, b"")) == b"true"
        coerce = bytes(raw.pop(COERCE, b"")) == b"true"
        if cloudevents.is_cloudevent(raw):
            raw = cloudevents.from_cloudevent(raw, topic=topic)
        severity, now_us = self._severity(raw.get("topic")), times.now_us()
        if traces.on() and "traceparent" not in raw:
            _begin_trace(raw, now_us)
        data, event = envelope.complete(
            raw, defaults={**self._defaults, "severity": severity}, now_us=now_us
        )
        _check_id(event.id)
        checked = self._registry.check(event.topic, event.payload, coerce=coerce)
        if checked is None:
            self._unregistered(event.topic)
        elif checked is not event.payload:
            data = msgspec.json.encode({**envelope.raw_fields(data), "payload": checked})
        data, removed = self.redactor.event(data)
        if removed:
            figures.REDACTED.add()
            log.info("event.redacted", id=event.id, topic=event.topic, found=len(removed))
        if len(data) > MAX_EVENT:
            raise EnvelopeError(f"event of {len(data)} bytes exceeds {MAX_EVENT} bytes")
        subject = envelope.subject(event.host, event.topic)
        if len(subject) > MAX_SUBJECT:
            raise EnvelopeError(
                f"host and topic of {len(subject)} characters exceed {MAX_SUBJECT}", field="host"
            )
        return Message(
            subject=subject,
            data=data,
            id=event.id,
            source=event.source,
            topic=event.topic,
            traceparent=event.traceparent,
            reply=reply,
            headers=UNREGISTERED if checked is None else None,
        )

    def _severity(self, topic: Any) -> str:
        """The topic's own; what is wrong with the topic is for `complete` to say."""
        try:
            if not isinstance(topic, str):
                topic = msgspec.json.decode(topic or b'""', type=str)
            known = self._registry.get(topic)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return "info"
        return known.severity if known else "info"

    def _unregistered(self, topic: str) -> None:
        if topic in self._seen and not self._strict:
            return
        nearest = self._registry.nearest(topic)  # slow: only where it is said
        if self._strict:
            hint = f"; did you mean {nearest}?" if nearest else ""
            raise SchemaError(f"topic {topic} is not registered, and strict_topics is set{hint}")
        if len(self._seen) >= MAX_REMEMBERED:
            self._seen.clear()
        self._seen.add(topic)
        log.warning("topic.unregistered", topic=topic, nearest=nearest)


def _begin_trace(raw: dict[str, Any], now_us: int) -> None:
    """Give an event a trace that follows from its id: a line that comes again gets the same."""
    found = raw.setdefault("id", ids.uuid7(now_us // 1000))
    # what is wrong with it is for `complete` to say
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
        id = found if isinstance(found, str) else msgspec.json.decode(found, type=str)
        raw["traceparent"] = traces.given(id)


def asks_reply(line: bytes) -> bool:
    """Whether the sender of a line that is no event, perhaps not JSON, waits for an answer."""
    return _ASKS_REPLY.search(line) is not None


def _check_id(id: str) -> None:
    if not (0 < len(id) <= MAX_ID and id.isascii() and id.isprintable() and " " not in id):
        raise EnvelopeError(
            f"id {id[:MAX_ID]!r} is not 1 to {MAX_ID} printable ASCII characters without spaces",
            field="id",
        )
