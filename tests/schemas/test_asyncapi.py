"""The mesh as an AsyncAPI document; tests/cli/test_exports.py has the standard's own parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import jsonschema

from opsmesh.schemas import asyncapi
from opsmesh.schemas.payloads import TOPICS

DOCUMENT: Final = asyncapi.document(TOPICS, version="1.2.3")


def references(part: Any) -> Iterator[str]:
    """Every $ref in it."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_topic_is_a_channel() -> None:
    """Its address is the subject its events are on; beside them is the door for strangers."""
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    wanted = {f"evt.{{host}}.{topic.name}" for topic in TOPICS}
    assert addresses == {*wanted, "ingest.{host}.{topic}"}


def test_references_lead_somewhere() -> None:
    """Nothing is referred to that is not in the document."""
    for reference in {*references(DOCUMENT)}:
        part = DOCUMENT
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]


def test_examples_are_what_is_described() -> None:
    """Each message's example fits its schema, and an event without its payload does not."""
    for topic in TOPICS:
        message = DOCUMENT["components"]["messages"][topic.name.replace(".", "_")]
        checker = jsonschema.Draft202012Validator(
            {**message["payload"], "components": DOCUMENT["components"]}
        )
        [example] = message["examples"]
        assert checker.is_valid(example["payload"]), topic.name
        without = {name: value for name, value in example["payload"].items() if name != "payload"}
        assert not checker.is_valid(without), topic.name
