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

from opsmesh.schemas.cloudevents import to_cloudevent
from opsmesh.schemas.envelope import Event
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
