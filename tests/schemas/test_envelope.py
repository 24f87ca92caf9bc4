"""envelope: grammar, the seed's bare shape, unknown fields, limits, hostile input."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsmesh.schemas import envelope, ids
from opsmesh.schemas.errors import EnvelopeError, PayloadTooLarge, SchemaError, TopicError

SEED: dict[str, Any] = {
    "topic": "service.start.failed",
    "ts_utc": "2026-11-23T09:12:00.123456Z",
    "source": "journal",
    "component": "systemd",
    "severity": "error",
    "correlation_id": "c-1",
    "host": "laptop",
    "session_id": "c1",
    "workspace": "/home/dev/app",
    "payload": {"unit": "backup.service", "result": "exit-code"},
}
DEFAULTS = {k: SEED[k] for k in ("host", "session_id", "workspace", "source", "component")} | {
    "severity": "info"
}
NOW = 1_795_396_320_000_123

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=12)
TOPIC = st.lists(TOKEN, min_size=2, max_size=6).map(".".join)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


def _bytes(**changes: Any) -> bytes:
    fields = {**SEED, **changes}
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


def test_seed_is_accepted() -> None:
    """The seed's bare envelope is an event as it stands."""
    event = envelope.decode(_bytes())
    assert (event.topic, event.payload, event.id) == (SEED["topic"], SEED["payload"], "")
    assert event.ts_us == 1_795_425_120_123_456


def test_seed_gets_an_id_from_its_place() -> None:
    """An event without an id has the same one for every reader, made of where it is stored."""
    one, again = (envelope.decode(_bytes(), stored=("EVENTS", 7, NOW)) for _ in range(2))
    assert one.id == again.id
    assert ids.unix_ms(one.id) == NOW // 1000
    assert envelope.decode(_bytes(), stored=("EVENTS", 8, NOW)).id != one.id


def test_own_id_stays() -> None:
    """An event with an id keeps it wherever it is stored."""
    assert envelope.decode(_bytes(id="mine"), stored=("EVENTS", 7, NOW)).id == "mine"


@given(TOPIC)
def test_topic_grammar(topic: str) -> None:
    """A topic is 2 to 6 tokens of [a-z0-9_]."""
    assert envelope.check_topic(topic) == topic


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "one",
        "A.b",
        "a..b",
        ".a.b",
        "a.b.",
        "a.b.c.d.e.f.g",
        "a.b*",
        "a.>",
        "a b.c",
        "a.b\n",
        "ä.b",
    ],
)
def test_bad_topics(topic: str) -> None:
    """Any other topic is refused, and wildcards above all."""
    with pytest.raises(TopicError) as caught:
        envelope.decode(_bytes(topic=topic))
    assert caught.value.topic == topic


@given(st.text())
def test_host_is_one_token(host: str) -> None:
    """Any host name becomes a single subject token without wildcards."""
    token = envelope.host_token(host)
    assert token
    assert not set(token) & set(".*> \t\r\n")


@pytest.mark.parametrize("severity", envelope.SEVERITIES)
def test_severities(severity: str) -> None:
    """The four severities are accepted."""
    assert envelope.decode(_bytes(severity=severity)).severity == severity


def test_bad_severity() -> None:
    """Another severity is refused with the valid ones."""
    with pytest.raises(EnvelopeError, match="'fatal' is not one of info, warn, error") as caught:
        envelope.decode(_bytes(severity="fatal"))
    assert caught.value.field == "severity"


@pytest.mark.parametrize("field", envelope.REQUIRED)
def test_missing_field(field: str) -> None:
    """A missing field is named."""
    with pytest.raises(EnvelopeError, match=f"missing field {field}") as caught:
        envelope.decode(_bytes(**{field: ...}))
    assert caught.value.field == field


@pytest.mark.parametrize("ts", ["2026-11-23T09:12:00", "now", ""])
def test_bad_time(ts: str) -> None:
    """A time that is not RFC 3339 with an offset is refused."""
    with pytest.raises(EnvelopeError, match="RFC 3339"):
        envelope.decode(_bytes(ts_utc=ts))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe",
        b'{"topic": NaN}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"payload": "text"}',
        b'{"topic": 1}',
    ],
)
def test_hostile_input(data: bytes) -> None:
    """Bytes that are no envelope are refused with an error of ours, whatever they are."""
    with pytest.raises(SchemaError):
        envelope.decode(data)
    with pytest.raises(SchemaError):
        envelope.complete(envelope.raw_fields(data), defaults=DEFAULTS, now_us=NOW)


@pytest.mark.parametrize(
    "data", [b'"\x80"', b'{"\x80": 1}', b'{"topic": "\x80"}', b'{"payload": {"a": "\xff"}}']
)
def test_text_that_is_no_utf_8(data: bytes) -> None:
    """It is refused like everything else that is no event, wherever in it that text stands."""
    with pytest.raises(EnvelopeError, match="not JSON"):
        envelope.decode(data)


@given(st.binary(max_size=200))
def test_noise(data: bytes) -> None:
    """Random bytes are never an event, and never another error."""
    with pytest.raises(SchemaError):
        envelope.decode(data)


def test_payload_limit() -> None:
    """A payload of the limit passes; one byte more is refused with size and limit."""
    room = envelope.MAX_PAYLOAD - len(b'{"t":""}')
    full = {"topic": "a.b", "payload": {"t": "x" * room}}
    stored, _ = envelope.complete(full, defaults=DEFAULTS, now_us=NOW)
    assert len(stored) > envelope.MAX_PAYLOAD
    over = {"topic": "a.b", "payload": {"t": "x" * (room + 1)}}
    with pytest.raises(PayloadTooLarge) as caught:
        envelope.complete(over, defaults=DEFAULTS, now_us=NOW)
    assert (caught.value.size, caught.value.limit) == (262_145, 262_144)
    with pytest.raises(PayloadTooLarge):
        envelope.decode(_bytes(payload=over["payload"]))


def test_complete_fills_what_is_missing() -> None:
    """A topic alone becomes a whole envelope, and starts a story of its own."""
    stored, event = envelope.complete({"topic": "a.b"}, defaults=DEFAULTS, now_us=NOW)
    assert event.ts_us == NOW
    assert (event.host, event.payload, event.schema_version) == ("laptop", {}, "1.0")
    assert event.correlation_id == event.id
    assert ids.unix_ms(event.id) == NOW // 1000
    assert envelope.decode(stored) == event


def test_complete_needs_a_topic() -> None:
    """Without a topic there is no event."""
    with pytest.raises(EnvelopeError, match="missing field topic"):
        envelope.complete({"payload": {}}, defaults=DEFAULTS, now_us=NOW)


def test_unknown_fields_keep_their_bytes() -> None:
    """Fields that we do not know, and the payload, are stored byte for byte as they came."""
    odd = b'{"n": 1.0, "big": 12345678901234567890123, "u": "\\u00e9", "sp" :  [1 ,2]}'
    line = b'{"x_new": ' + odd + b', "topic": "a.b", "payload": ' + odd + b"}"
    stored, event = envelope.complete(envelope.raw_fields(line), defaults=DEFAULTS, now_us=NOW)
    assert stored.count(odd) == 2
    assert event.extra == {"x_new": json.loads(odd)}


def test_canonical_order() -> None:
    """Whatever order fields come in, they are stored in the seed's order, unknown ones last."""
    shuffled = {"zz": 1, **dict(reversed(SEED.items()))}
    stored, _ = envelope.complete(shuffled, defaults=DEFAULTS, now_us=NOW)
    names = list(json.loads(stored))
    assert names[: len(SEED)] == list(SEED)
    assert names[-1] == "zz"


@settings(max_examples=60)
@given(
    TOPIC,
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), JSON, max_size=4),
    st.dictionaries(st.text("xyz", min_size=2, max_size=4), JSON, max_size=3),
)
def test_round_trip(topic: str, payload: dict[str, Any], extra: dict[str, Any]) -> None:
    """An event that is completed, stored and read is the same event, unknown fields included."""
    raw = {**SEED, **extra, "topic": topic, "payload": payload}
    stored, event = envelope.complete(raw, defaults=DEFAULTS, now_us=NOW)
    assert envelope.decode(stored) == event
    assert (event.payload, event.extra) == (payload, extra)
    assert envelope.decode(envelope.encode(event)) == event
    again, _ = envelope.complete(envelope.raw_fields(stored), defaults={}, now_us=0)
    assert again == stored


def test_view_holds_unknown_fields() -> None:
    """A condition sees the fields that we do not know beside ours; none hides one of ours."""
    event = msgspec.structs.replace(envelope.decode(_bytes(new=1)), attempt=2)
    assert (event.view()["new"], event.view()["attempt"]) == (1, 2)
