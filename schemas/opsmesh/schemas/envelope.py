"""The envelope: the one shape of every event, and how bytes become one.

Stored bytes are never rewritten: `decode` reads them, and what it completes (an id, the version)
lives in memory only. `complete` is for the producing side, before the first store; it keeps the
bytes of every field that it does not have to touch.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, get_args

import msgspec

from opsmesh.schemas import ids, times
from opsmesh.schemas.errors import EnvelopeError, PayloadTooLarge, TopicError

Severity = Literal["info", "warn", "error", "critical"]
SEVERITIES: Final[tuple[str, ...]] = get_args(Severity)

#: The envelope's version; a reader accepts any 1.x.
SCHEMA_VERSION: Final = "1.0"
#: Largest payload, in bytes of JSON.
MAX_PAYLOAD: Final = 256 * 1024

_MAJOR = SCHEMA_VERSION.partition(".")[0]
_TOPIC = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+){1,5}")
_HOST_TOKEN = re.compile(r"[^a-z0-9_-]")


class Event(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One event. Fields stand in their canonical order; `extra` holds the ones we do not know
    (`decode` sorts them out: what msgspec alone decodes must have none)."""

    topic: str
    ts_utc: str
    source: str
    component: str
    severity: Severity
    correlation_id: str
    host: str
    session_id: str
    workspace: str
    payload: dict[str, Any]
    run_id: str | None = None
    attempt: int | None = None
    exit_code: int | None = None
    duration_ms: float | None = None
    evidence_path: str | None = None
    id: str = ""
    schema_version: str = ""
    causation_id: str | None = None
    hops: int = 0
    seq: int | None = None
    boot_id: str | None = None
    traceparent: str | None = None
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def ts_us(self) -> int:
        """Microseconds since the epoch of `ts_utc`."""
        return times.parse_us(self.ts_utc)

    def view(self) -> dict[str, Any]:
        """The event as plain values, as a condition or a template sees it."""
        fields = msgspec.structs.asdict(self)
        return {**fields.pop("extra"), **fields}


FIELDS: Final[tuple[str, ...]] = tuple(f for f in Event.__struct_fields__ if f != "extra")
REQUIRED: Final[tuple[str, ...]] = FIELDS[: FIELDS.index("payload") + 1]
_KNOWN: Final = frozenset(FIELDS)

_decode_event = msgspec.json.Decoder(Event).decode
_decode_any = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
#: What those raise for bytes that are no JSON; the last for text that is no UTF-8.
_BROKEN: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


@functools.lru_cache(maxsize=4096)
def check_topic(topic: str) -> str:
    """The topic itself, or TopicError."""
    if not _TOPIC.fullmatch(topic):
        raise TopicError(topic)
    return topic


def host_token(host: str) -> str:
    """The host's name as one NATS subject token: lower case, other characters become `_`."""
    return _HOST_TOKEN.sub("_", host.lower()) or "_"


def subject(host: str, topic: str) -> str:
    """The NATS subject an event travels on: `evt.<host>.<topic>`."""
    return f"evt.{host_token(host)}.{topic}"


def decode(data: bytes, *, stored: tuple[str, int, int] | None = None) -> Event:
    """The event in `data`; EnvelopeError or TopicError when it is none.

    `stored` is (stream, sequence, microseconds since the epoch) of the message that held it. An
    event in the seed's bare shape has no id: it gets the one derived from where it is stored, so
    that every reader names it alike.
    """
    event = _known_fields(data) or _from_fields(_any_fields(data))
    if len(data) > MAX_PAYLOAD and (size := len(_encode(event.payload))) > MAX_PAYLOAD:
        raise PayloadTooLarge(size, MAX_PAYLOAD)
    if event.id or stored is None:
        return event
    stream, sequence, us = stored
    return msgspec.structs.replace(event, id=ids.derived(us // 1000, stream, str(sequence)))


def _known_fields(data: bytes) -> Event | None:
    """The event, read in one step; None when that needs a second look: it has fields that we do
    not know, or is none at all."""
    try:
        event = _decode_event(data)
    except _BROKEN:
        return None
    if event.extra:  # a field of that name is none of ours
        return None
    _check_version(event.schema_version)
    check_topic(event.topic)
    _check_time(event.ts_utc)
    return event


def _any_fields(data: bytes) -> dict[str, Any]:
    try:
        fields = _decode_any(data)
    except _BROKEN as error:
        raise EnvelopeError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise EnvelopeError(f"expected a JSON object, got {type(fields).__name__}")
    return fields


def _from_fields(fields: dict[str, Any]) -> Event:
    if not fields.keys() <= _KNOWN:
        known = {k: v for k, v in fields.items() if k in _KNOWN}
        known["extra"] = {k: v for k, v in fields.items() if k not in _KNOWN}
        fields = known
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise EnvelopeError(f"missing field {', '.join(missing)}", field=missing[0])
    try:
        event = msgspec.convert(fields, Event)
    except msgspec.ValidationError as error:
        raise _explain(error, fields) from error
    _check_version(event.schema_version)
    check_topic(event.topic)
    _check_time(event.ts_utc)
    return event


def _explain(error: msgspec.ValidationError, fields: Mapping[str, Any]) -> EnvelopeError:
    text = str(error)
    field = text.rpartition("`$.")[2].rstrip("`").split(".")[0].split("[")[0] or None
    if field == "severity":
        text = f"severity {fields.get('severity')!r} is not one of {', '.join(SEVERITIES)}"
    return EnvelopeError(text, field=field)


def _check_version(text: str) -> None:
    if text in ("", SCHEMA_VERSION) or text.partition(".")[0] == _MAJOR:
        return
    raise EnvelopeError(
        f"schema_version {text!r}: this version of opsmesh reads {_MAJOR}.x; a newer one has "
        "written this event, and can read it",
        field="schema_version",
    )


def _check_time(text: str) -> None:
    try:
        if datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("no offset")  # noqa: TRY301
    except ValueError as error:
        raise EnvelopeError(
            f"ts_utc {text!r} is not an RFC 3339 time like 2026-11-23T09:12:00.123456Z",
            field="ts_utc",
        ) from error


def encode(event: Event) -> bytes:
    """The event's canonical bytes: one line of JSON, known fields in order, then `extra`."""
    if not event.extra:
        return _encode(event)
    fields = msgspec.to_builtins(msgspec.structs.replace(event, extra={}))
    return _encode({**fields, **event.extra})


def raw_fields(data: bytes) -> dict[str, Any]:
    """The fields of a JSON object, each still its own bytes (msgspec.Raw); or EnvelopeError."""
    try:
        return dict(_decode_raw(data))
    except msgspec.ValidationError as error:
        raise EnvelopeError(f"expected a JSON object: {error}") from error
    except _BROKEN as error:
        raise EnvelopeError(f"not JSON: {error}") from error


def complete(
    raw: Mapping[str, Any], *, defaults: Mapping[str, Any], now_us: int
) -> tuple[bytes, Event]:
    """Make a whole envelope of what a producer sent: (bytes to store, the event in them).

    `raw` holds plain values, or bytes as `raw_fields` gives them. Missing fields come
    from `defaults` (host, session_id, workspace, source, component, severity), the clock and a new
    id; the correlation id of an event that starts a story is its own id. A
    field that is there, known or not, keeps its own bytes. Raises EnvelopeError, PayloadTooLarge
    or TopicError.
    """
    if "topic" not in raw:
        raise EnvelopeError("missing field topic", field="topic")
    fields: dict[str, Any] = {"payload": {}, **defaults, **raw}
    fields.setdefault("ts_utc", times.format_us(now_us))
    fields.setdefault("id", ids.uuid7(now_us // 1000))
    fields.setdefault("schema_version", SCHEMA_VERSION)
    fields.setdefault("correlation_id", fields["id"])
    payload = fields["payload"]
    if not isinstance(payload, msgspec.Raw):
        payload = fields["payload"] = msgspec.Raw(_encode(payload))
    if len(payload) > MAX_PAYLOAD:
        raise PayloadTooLarge(len(payload), MAX_PAYLOAD)
    ordered = {name: fields[name] for name in FIELDS if name in fields}
    ordered |= {name: value for name, value in raw.items() if name not in _KNOWN}
    stored = _encode(ordered)
    return stored, decode(stored)
