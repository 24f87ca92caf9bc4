"""What is taken of a stranger's schemas, forms and streams: parts without a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conftest import run

from opsmesh.handlers.actions.contract import Reply
from opsmesh.handlers.mcp import elicit, http, schema, stdio


@pytest.mark.parametrize(
    ("document", "value", "said"),
    [
        ({"type": "object", "required": ["a"]}, {}, "'a' is a required property"),
        (
            {"properties": {"a": {"type": "array", "items": {"type": "integer"}}}},
            {"a": [1, "x"]},
            "result 'a[1]': 'x' is not of type 'integer'",
        ),
        ({"properties": {"a": {"pattern": "^b+$"}}}, {"a": "bbb"}, ""),
        ({"properties": {"a": {"pattern": "(?<=b)c"}}}, {"a": "x"}, ""),  # not read, not checked
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, {"b": 1}, ""),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [{"n": 1}, {"n": 1}]}, "result 'a'"),
    ],
)
def test_wrong(document: dict[str, Any], value: Any, said: str) -> None:
    """A value is judged by its schema, and what cannot be checked safely is not held against it."""
    found = schema.wrong(document, value, what="result")
    assert found.startswith(said) if said else found == ""


@pytest.mark.parametrize(
    "document",
    [
        {"$ref": "#"},
        {"type": "no such type"},
        {"properties": 3},
        {"$ref": "http://127.0.0.1:9/x"},
        {"x": "y" * schema.MAX_SCHEMA},
        {"anyOf": [{"properties": {"a": {"items": {"multipleOf": 0}}}}] * 3},
    ],
)
def test_unusable(document: dict[str, Any]) -> None:
    """A schema that is none, or asks for too much, is said to be; nothing else is raised."""
    with pytest.raises(schema.Unusable):
        schema.wrong(document, {"a": [1]}, what="result")


def test_square_of_many() -> None:
    """A long list is not compared item with item."""
    value = {"a": [{"n": n} for n in range(20_000)]}
    began = time.process_time()
    schema.wrong({"properties": {"a": {"uniqueItems": True}}}, value, what="result")
    assert time.process_time() - began < 2


def request(key: str, message: str, form: dict[str, Any], mode: str = "form") -> dict[str, Any]:
    """A stand-in for the SDK's InputRequiredResult."""
    params = SimpleNamespace(mode=mode, message=message, requested_schema=form)
    return {key: SimpleNamespace(method="elicitation/create", params=params)}


def test_form() -> None:
    """Of a form the plain fields are taken over, cut to a length, and no pattern."""
    form = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^(a+)+$", "minLength": 1, "default": "x"},
            "many": {"enum": [f"c{n}" for n in range(1000)]},
            "title": {"type": "integer", "title": "t\x1b[2J" * 100, "minimum": True},
            **{f"f{n}": {"type": "object", "$ref": "#"} for n in range(100)},
        },
        "required": ["name", "gone"],
        "$defs": {},
    }
    found = elicit.form(form)
    assert set(found) == {"type", "properties", "required", "additionalProperties"}
    assert found["required"] == ["name"]
    assert found["properties"]["name"] == {"type": "string", "minLength": 1}
    assert len(found["properties"]) == elicit.MAX_FIELDS
    assert len(found["properties"]["many"]["enum"]) == elicit.MAX_CHOICES
    title = found["properties"]["title"]
    assert (set(title), len(title["title"])) == ({"type", "title"}, elicit.MAX_WORD)
    assert title["title"].isprintable()


@pytest.mark.parametrize(
    ("requests", "state"),
    [
        ({}, "x"),
        (request("a", "open this", {}, mode="url"), "x"),
        ({"a": SimpleNamespace(method="sampling/createMessage", params=None)}, "x"),
        ({k: v for n in range(11) for k, v in request(f"k{n}", "?", {}).items()}, "x"),
        (request("a", "?", {}), "s" * 100_000),
    ],
)
def test_not_for_a_person(requests: dict[str, Any], state: str) -> None:
    """What a person cannot answer, or nobody can keep, is no question."""
    result = SimpleNamespace(input_requests=requests, request_state=state)
    assert elicit.wanted(result) is None


def test_kept() -> None:
    """What is kept of a question is the question again."""
    result = SimpleNamespace(input_requests=request("k", "Sure?", {}), request_state="s")
    found = elicit.wanted(result)
    assert found is not None
    assert elicit.Wanted.of(found.saved()) == found
    [(_, text, form)] = found.questions
    asked = elicit.question("a/b", text, form, name="input-1", expires_s=None, by=())
    assert (asked.prompt, asked.schema) == ("a/b asks: Sure?", None)
    assert elicit.response(Reply(verdict="granted")) == {"action": "accept", "content": {}}


def test_flood_over_http() -> None:
    """A stream of events that floods is read slowly, after as much as one answer may have."""

    class Flood:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 65536

    async def body() -> int:
        total = 0

        async def read() -> None:
            nonlocal total
            async for chunk in http._Paced(Flood()):
                total += len(chunk)

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.5)
        reading.cancel()
        return total

    assert stdio.MAX_MESSAGE <= run(body()) <= stdio.MAX_MESSAGE + http.FLOOD
