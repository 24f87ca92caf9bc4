"""JSON Schema (draft 2020-12) of events: the envelope with a topic's payload in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from opsmesh.schemas.envelope import REQUIRED, SCHEMA_VERSION, Event
from opsmesh.schemas.topics import VERSION_KEY, Topic, schema_name

#: The dialect that every exported schema names.
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_REF: Final = "#/$defs/{name}"


def schema_id(topic: Topic) -> str:
    """The name of the schema that this topic has today."""
    return schema_name(topic.name, topic.version)


def example_event(topic: Topic) -> dict[str, Any]:
    """A whole event with the topic's example as its payload."""
    return {
        "topic": topic.name,
        "ts_utc": "2026-11-23T09:12:00.123456Z",
        "source": topic.owner,
        "component": topic.owner,
        "severity": topic.severity,
        "correlation_id": "01a2060b-4c40-7d1e-9f00-5d6c7b8a9f01",
        "host": "laptop",
        "session_id": "c1",
        "workspace": "/home/dev/app",
        "payload": topic.example,
        "id": "01a2060b-4c40-7d1e-9f00-5d6c7b8a9f01",
        "schema_version": SCHEMA_VERSION,
    }


def json_schema(topic: Topic) -> dict[str, Any]:
    """The schema of the topic's events. Fields that it does not name are allowed."""
    (event_ref, payload_ref), parts = msgspec.json.schema_components(
        [Event, topic.payload], ref_template=_REF
    )
    event = parts.pop(_name(event_ref))
    payload = parts.pop(_name(payload_ref))
    properties = event["properties"]
    del properties["extra"]  # where the reader keeps unknown fields; no field of the envelope
    for name in ("id", "schema_version"):
        properties[name] = {"type": "string"}
    properties["topic"] = {"const": topic.name}
    properties["ts_utc"] = {"type": "string", "format": "date-time"}
    if topic.version > 1:
        payload["properties"][VERSION_KEY] = {"const": topic.version}
        payload["required"] = [*payload.get("required", ()), VERSION_KEY]
    properties["payload"] = payload
    schema = {
        "$schema": DIALECT,
        "$id": schema_id(topic),
        "title": topic.name,
        "description": topic.description,
        "type": "object",
        "properties": properties,
        "required": list(REQUIRED),
        "examples": [example_event(topic)],
    }
    return {**schema, "$defs": parts} if parts else schema


def json_schema_all(topics: Iterable[Topic]) -> dict[str, Any]:
    """One document for the events of all topics; each topic's schema lies under `$defs`."""
    schemas = {topic.name: json_schema(topic) for topic in topics}
    return {
        "$schema": DIALECT,
        "$id": "urn:opsmesh:schema:all",
        "title": "opsmesh events",
        "oneOf": [{"$ref": _REF.format(name=name)} for name in schemas],
        "$defs": schemas,
    }


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
