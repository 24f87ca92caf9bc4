"""export: JSON Schema of the topics' events."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from opsmesh.schemas import envelope, export
from opsmesh.schemas.payloads import TOPICS
from opsmesh.schemas.registry import Topic
from opsmesh.schemas.topics import Payload


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for v in node.values() for r in _references(v)]
    if isinstance(node, list):
        return [r for v in node for r in _references(v)]
    return []


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_topic_schema(topic: Topic) -> None:
    """A schema names its dialect and topic, holds the payload's fields, and is closed in itself."""
    schema = export.json_schema(topic)
    properties = schema["properties"]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:opsmesh:schema:{topic.name}:1"
    assert properties["topic"] == {"const": topic.name}
    assert set(properties) == set(envelope.FIELDS)
    assert schema["required"] == list(envelope.REQUIRED)
    assert list(properties["payload"]["properties"]) == [f.name for f in topic.fields()]
    assert properties["payload"].get("required", []) == [
        f.name for f in topic.fields() if f.required
    ]
    assert {r.removeprefix("#/$defs/") for r in _references(schema)} == set(schema.get("$defs", ()))


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_example_is_an_event(topic: Topic) -> None:
    """The example of a schema is an event of its topic."""
    (example,) = export.json_schema(topic)["examples"]
    event = envelope.decode(msgspec.json.encode(example))
    assert (event.topic, event.payload) == (topic.name, topic.example)
    msgspec.convert(event.payload, topic.payload)


def test_examples_validate() -> None:
    """A validator that is not ours accepts every example, alone and in the whole document."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    whole = export.json_schema_all(TOPICS)
    validator = jsonschema.Draft202012Validator
    validator.check_schema(whole)
    for schema in whole["$defs"].values():
        for example in schema["examples"]:
            validator(schema).validate(example)
            validator(whole).validate(example)
            assert not validator(schema).is_valid({**example, "severity": "fatal"})
            assert not validator(schema).is_valid({**example, "payload": []})


def test_whole_document() -> None:
    """One document holds the schema of every topic, and refers to each."""
    whole = export.json_schema_all(TOPICS)
    assert list(whole["$defs"]) == [topic.name for topic in TOPICS]
    assert [r["$ref"] for r in whole["oneOf"]] == [f"#/$defs/{topic.name}" for topic in TOPICS]


class Two(Payload, frozen=True, kw_only=True):
    """A payload."""

    n: int = 0


def test_version_is_part_of_the_schema() -> None:
    """The payload of a later version must say its version."""
    topic = Topic(
        "acme.two",
        payload=Two,
        owner="acme",
        description="Two.",
        example={"v": 2},
        version=2,
        upcasters={1: dict},
    )
    schema = export.json_schema(topic)
    assert schema["$id"].endswith(":2")
    assert schema["properties"]["payload"]["properties"]["v"] == {"const": 2}
    assert "v" in schema["properties"]["payload"]["required"]
