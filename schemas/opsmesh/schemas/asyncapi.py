"""The mesh as an AsyncAPI 3.0 document: a channel a topic, the envelope once, each payload once.

The document describes the mesh, not its clients: it *sends* what is stored, and *receives* at the
door for strangers (`ingest.<host>.<topic>`). Keys hold letters, digits and `_` alone, as tools make
names of them; the subject is the channel's `address`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from opsmesh.schemas.envelope import REQUIRED, Event
from opsmesh.schemas.export import example_event
from opsmesh.schemas.topics import VERSION_KEY, Topic

VERSION: Final = "3.0.0"
CLOUDEVENT: Final = "CloudEvent"

_REF: Final = "#/components/schemas/{name}"
_HOST: Final = {"description": "the host, as one token: lower case, other characters are _"}


def document(topics: Iterable[Topic], *, version: str) -> dict[str, Any]:
    """The whole document; `version` is that of opsmesh."""
    topics = list(topics)
    (event, *payloads), parts = msgspec.json.schema_components(
        [Event, *(topic.payload for topic in topics)], ref_template=_REF
    )
    envelope = parts[event["$ref"].rpartition("/")[2]]
    for name in ("topic", "payload", "extra"):  # said by each message; no field of the envelope
        del envelope["properties"][name]
    del envelope["additionalProperties"]  # a field that nobody knows is kept
    for name in ("id", "schema_version"):
        envelope["properties"][name] = {"type": "string"}
    envelope["properties"]["ts_utc"] = {"type": "string", "format": "date-time"}
    envelope["required"] = [name for name in REQUIRED if name not in ("topic", "payload")]
    envelope["description"] = "What every event has beside its topic and its payload."
    parts[CLOUDEVENT] = _cloudevent()
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "opsmesh",
            "version": version,
            "description": "What happens on a developer's machines, as durable events.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {**{_key(t.name): _channel(t) for t in topics}, "ingest": _ingest()},
        "operations": {
            **{f"send_{_key(topic.name)}": _sends(topic) for topic in topics},
            "receive_ingest": _receives(),
        },
        "components": {
            "messages": {
                **{
                    _key(topic.name): _message(topic, event, payload)
                    for topic, payload in zip(topics, payloads, strict=True)
                },
                **_strangers(),
            },
            "schemas": parts,
        },
    }


def _key(topic: str) -> str:
    return topic.replace(".", "_")


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": f"evt.{{host}}.{topic.name}",
        "description": topic.description,
        "parameters": {"host": _HOST},
        "messages": {"event": {"$ref": f"#/components/messages/{_key(topic.name)}"}},
    }


def _sends(topic: Topic) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{_key(topic.name)}"},
        "summary": topic.description,
    }


def _message(topic: Topic, event: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    required: Sequence[str] = ("topic", "payload")
    holds: dict[str, Any] = {"topic": {"const": topic.name}, "payload": payload}
    if topic.version > 1:
        version = {"properties": {VERSION_KEY: {"const": topic.version}}, "required": [VERSION_KEY]}
        holds["payload"] = {"allOf": [payload, version]}
    return {
        "name": topic.name,
        "title": topic.name,
        "summary": topic.description,
        "payload": {"allOf": [event, {"properties": holds, "required": list(required)}]},
        "examples": [{"payload": example_event(topic)}],
    }


def _ingest() -> dict[str, Any]:
    messages = {name: {"$ref": f"#/components/messages/{name}"} for name in _strangers()}
    return {
        "address": "ingest.{host}.{topic}",
        "description": "The door for producers that know nothing of the envelope.",
        "parameters": {"host": _HOST, "topic": {"description": "2 to 6 tokens of [a-z0-9_]"}},
        "messages": messages,
    }


def _receives() -> dict[str, Any]:
    sent = [{"$ref": f"#/channels/ingest/messages/{name}"} for name in ("event", "cloudevent")]
    answer = {"$ref": "#/channels/ingest/messages/answer"}
    return {
        "action": "receive",
        "channel": {"$ref": "#/channels/ingest"},
        "summary": "Completed, checked and redacted by the host's agent, then stored and answered.",
        "messages": sent,
        "reply": {"channel": {"$ref": "#/channels/ingest"}, "messages": [answer]},
    }


def _strangers() -> dict[str, Any]:
    answer = {
        "type": "object",
        "properties": {
            "ok": {"type": "boolean", "description": "whether it is stored, or safe in the spool"},
            "id": {"type": "string", "description": "the event's id"},
            "seq": {"type": "integer", "description": "its sequence in the stream"},
            "spooled": {"type": "boolean", "description": "it is sent when the broker is back"},
            "duplicate": {"type": "boolean", "description": "it was stored before"},
            "error": {"type": "string", "description": "why it is refused"},
        },
        "required": ["ok"],
    }
    return {
        "event": {
            "title": "an event, in as few fields as there are",
            "payload": {"type": "object", "properties": {"payload": {"type": "object"}}},
            "examples": [{"payload": {"payload": {"n": 1}}}],
        },
        "cloudevent": {
            "title": "a CloudEvent 1.0 in structured mode",
            "contentType": "application/cloudevents+json",
            "payload": {"$ref": _REF.format(name=CLOUDEVENT)},
        },
        "answer": {"title": "what became of it", "payload": answer},
    }


def _cloudevent() -> dict[str, Any]:
    text = {"type": "string", "minLength": 1}
    return {
        "type": "object",
        "description": "https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md",
        "properties": {
            "specversion": {"const": "1.0"},
            **dict.fromkeys(("id", "source", "type", "subject"), text),
            "time": {"type": "string", "format": "date-time"},
            "data": {},
        },
        "required": ["specversion", "id", "source", "type"],
    }
