"""Events as CloudEvents: whatever an event holds, the official SDK takes what comes of it."""

from __future__ import annotations

import string
from typing import Any
from urllib.parse import urlparse

import msgspec
import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.schemas.cloudevents import RESERVED, from_cloudevent, to_cloudevent
from opsmesh.schemas.envelope import Event, complete, raw_fields
from opsmesh.schemas.errors import EnvelopeError
from opsmesh.schemas.export import example_event
from opsmesh.schemas.payloads import TOPICS

FULL = Event(
    topic="service.start.failed",
    ts_utc="2026-11-23T09:12:00.123456Z",
    source="journal",
    component="backup.service",
    severity="error",
    correlation_id="story-1",
    host="laptop",
    session_id="c1",
    workspace="/home/dev/app",
    payload={"unit": "backup.service"},
    run_id="r-1",
    attempt=2,
    exit_code=1,
    duration_ms=1.5,
    evidence_path="/b/1",
    id="01a2060b-4c40-7d1e-9f00-5d6c7b8a9f01",
    schema_version="1.0",
    causation_id="cause-1",
    hops=1,
    seq=2**40,
    boot_id="b-1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    extra={"Team Name": "core", "data": 1, "teamname": [1], "ratio": 0.5, "flag": True},
)


def read(found: dict[str, Any]) -> BaseCloudEvent:
    """The event as the SDK reads it from its JSON; it raises for what the standard forbids."""
    return JSONFormat().read(CloudEvent, msgspec.json.encode(found))


def test_every_field_has_its_place() -> None:
    """Each field of the envelope is there under a legal name; none is lost, none renamed twice."""
    found = to_cloudevent(FULL, known=lambda topic: True)
    assert found == {
        "specversion": "1.0",
        "id": FULL.id,
        "source": "urn:opsmesh:laptop:journal",
        "type": "service.start.failed",
        "time": FULL.ts_utc,
        "datacontenttype": "application/json",
        "subject": "backup.service",
        "dataschema": "urn:opsmesh:schema:service.start.failed:1",
        "severity": "error",
        "correlationid": "story-1",
        "sessionid": "c1",
        "workspace": "/home/dev/app",
        "runid": "r-1",
        "attempt": 2,
        "exitcode": 1,
        "durationms": "1.5",
        "evidencepath": "/b/1",
        "schemaversion": "1.0",
        "causationid": "cause-1",
        "hops": 1,
        "seq": str(2**40),
        "bootid": "b-1",
        "traceparent": FULL.traceparent,
        "host": "laptop",
        "teamname": "core",
        "data2": 1,
        "teamname2": "[1]",
        "ratio": "0.5",
        "flag": True,
        "data": {"unit": "backup.service"},
    }
    event = read(found)
    assert (event.get_id(), event.get_type()) == (FULL.id, FULL.topic)
    assert event.get_data() == FULL.payload


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_every_topic_of_ours(topic: Any) -> None:
    """The example of each registered topic is a CloudEvent that the official SDK reads."""
    event = msgspec.convert(example_event(topic), Event)
    assert read(to_cloudevent(event)).get_type() == topic.name


def test_payload_keeps_its_bytes() -> None:
    """Numbers of the payload stay as they were written."""
    found = to_cloudevent(FULL, msgspec.Raw(b'{"n":1.50}'))
    assert b'"data":{"n":1.50}' in msgspec.json.encode(found)


texts = st.text(max_size=8)


@given(
    texts, texts, texts, st.dictionaries(texts, st.none() | texts | st.integers() | st.booleans())
)
def test_any_text_makes_a_legal_cloudevent(
    host: str, source: str, component: str, extra: dict[str, Any]
) -> None:
    """Whatever foreign clients write: names are legal, texts hold no controls, whole numbers have
    32 bits, and the source is a URI."""
    known = {"topic", "data"}
    event = msgspec.structs.replace(
        FULL,
        host=host,
        source=source,
        component=component,
        extra={k: v for k, v in extra.items() if k not in known},
    )
    found = to_cloudevent(event)
    read(found)
    for name, value in found.items():
        assert set(name) <= set(string.ascii_lowercase + string.digits)
        if name == "data":
            continue
        assert value != ""
        if isinstance(value, str):
            assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value)
        else:
            assert type(value) is bool or -(2**31) <= value < 2**31
    assert urlparse(found["source"]).scheme == "urn"
    assert found["source"].isascii()


def back(found: dict[str, Any], **more: Any) -> Event:
    """The event that a CloudEvent's JSON is taken in as."""
    raw = raw_fields(msgspec.json.encode(found))
    fields = from_cloudevent(raw, **more)
    defaults = {"host": "here", "session_id": "", "workspace": "", "severity": "info"}
    return complete(fields, defaults={**defaults, "component": "ingest"}, now_us=0)[1]


#: The specification's own example (CloudEvents 1.0.2, JSON format 3.2), shortened.
STRANGE = {
    "specversion": "1.0",
    "type": "com.github.pull-request.opened",
    "source": "https://github.com/cloudevents/spec/pull",
    "subject": "123",
    "id": "A234-1234-1234",
    "time": "2026-11-23T17:31:00Z",
    "comexampleextension1": "value",
    "comexampleothervalue": 5,
    "datacontenttype": "application/json",
    "data": {"much": "wow"},
}


def test_ours_comes_back_as_it_was() -> None:
    """An event that went out as a CloudEvent is the same event when it comes in."""
    plain = msgspec.structs.replace(FULL, extra={"team": "core", "ratio": 5})
    assert back(to_cloudevent(plain)) == plain


@given(st.builds(msgspec.structs.replace, st.just(FULL), seq=st.integers(0, 2**62)))
def test_numbers_come_back(event: Event) -> None:
    """A number that is text in between is the same number again."""
    event = msgspec.structs.replace(event, extra={})
    assert back(to_cloudevent(event)) == event


def test_a_strangers_event() -> None:
    """Each attribute has its place, and those that have none in the envelope stay beside it."""
    event = back(STRANGE)
    assert event.topic == "com.github.pull_request.opened"
    assert (event.source, event.component) == (STRANGE["source"], "123")
    assert (event.ts_utc, event.payload) == (STRANGE["time"], {"much": "wow"})
    assert (event.host, event.severity) == ("here", "info")
    assert event.extra == {
        "ce_id": "A234-1234-1234",
        "ce_type": "com.github.pull-request.opened",
        "comexampleextension1": "value",
        "comexampleothervalue": 5,
    }


def test_source_and_id_are_one_event() -> None:
    """Sent again it has the id it had; from another source the same id is another event."""
    first = back(STRANGE)
    assert back({**STRANGE, "data": 1}).id == first.id
    assert back({**STRANGE, "source": "other"}).id != first.id


@pytest.mark.parametrize(
    ("type_", "topic"),
    [
        ("service.start.failed", "service.start.failed"),
        ("io.opsmesh.service.start.failed", "service.start.failed"),
        ("Com.Example.Some-Thing", "com.example.some_thing"),
        ("push", "cloudevents.push"),
        ("a.b.c.d.e.f.g.h", "a.b.c.d.e.f_g_h"),
        ("...", "cloudevents.event"),
        ("é", "cloudevents.event"),
        ("x:/y?z", "cloudevents.x_y_z"),
    ],
)
def test_types_become_topics(type_: str, topic: str) -> None:
    """A type that is no topic becomes the nearest one, and is kept."""
    event = back({**STRANGE, "type": type_})
    assert event.topic == topic
    assert event.extra.get("ce_type", topic) == (topic if type_ == topic else type_)


def test_where_it_was_sent_goes_first() -> None:
    """A topic that the sender has named is the event's, whatever its type says."""
    event = back(STRANGE, topic="github.pull.opened")
    assert (event.topic, event.extra["ce_type"]) == ("github.pull.opened", STRANGE["type"])


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ({"data": {"a": 1}}, {"a": 1}),
        ({"data": [1, 2]}, {"data": [1, 2]}),
        ({"data": "<a/>", "datacontenttype": "text/xml"}, {"data": "<a/>"}),
        ({"data": None}, {}),
        ({}, {}),
        ({"data_base64": "AAEC"}, {"data_base64": "AAEC"}),
    ],
)
def test_data_becomes_the_payload(data: dict[str, Any], payload: dict[str, Any]) -> None:
    """An object is the payload; what is none is a field of it."""
    stranger = {name: value for name, value in STRANGE.items() if name != "data"}
    assert back({**stranger, **data}).payload == payload


@pytest.mark.parametrize("name", ["severity", "hops", "host", "seq", "bootid", "attempt"])
def test_a_strangers_word_for_a_field_of_ours(name: str) -> None:
    """What a field cannot hold, or only we write, stays beside the envelope and refuses nothing."""
    event = back({**STRANGE, name: "high"})
    assert event.extra[f"ce_{name}"] == "high"
    assert (event.severity, event.hops, event.host) == ("info", 0, "here")


def test_fields_that_strangers_may_fill() -> None:
    """Correlation, severity, trace and their like are the envelope's."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event = back({**STRANGE, "severity": "warn", "correlationid": "c", "traceparent": trace})
    assert (event.severity, event.correlation_id, event.traceparent) == ("warn", "c", trace)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"specversion": "0.3"}, "specversion '0.3'"),
        ({"id": ""}, "needs id"),
        ({"source": 5}, "needs source"),
        ({"type": None}, "needs type"),
        ({"time": "yesterday"}, "ts_utc 'yesterday'"),
    ],
)
def test_what_is_none_is_refused(wrong: dict[str, Any], said: str) -> None:
    """What the standard demands is demanded, in words that name the attribute."""
    with pytest.raises(EnvelopeError, match=said):
        back({**STRANGE, **wrong})


@given(
    st.dictionaries(
        st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20),
        st.one_of(st.booleans(), st.integers(-(2**31), 2**31 - 1), st.text(max_size=20)),
        max_size=6,
    ),
    st.text(min_size=1, max_size=40),
    st.text(min_size=1, max_size=40),
)
def test_nothing_of_a_stranger_is_lost(more: dict[str, Any], type_: str, source: str) -> None:
    """Every value that came is somewhere in the event; no attribute makes it fail."""
    more = {name: value for name, value in more.items() if name not in (*RESERVED, "topic")}
    event = back({**STRANGE, "type": type_, "source": source, **more})
    kept = [*event.view().values()]
    for value in (type_, source, *more.values()):
        assert value in kept or str(value) in map(str, kept)
