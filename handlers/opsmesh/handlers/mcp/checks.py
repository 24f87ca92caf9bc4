"""What is checked of a call: its arguments before, its answer after. Each raises CallFailed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mcp_types import Tool

from opsmesh.handlers.errors import CallFailed
from opsmesh.handlers.mcp import schema
from opsmesh.handlers.mcp.answer import MAX_STRUCTURED, Answer

#: Characters of what a server says in an error.
MAX_SAID: Final = 300


def arguments(tool: Tool, given: Mapping[str, Any]) -> None:
    """Arguments fit the tool's input schema."""
    try:
        fault = schema.wrong(tool.input_schema, dict(given), what="argument")
    except schema.Unusable as error:
        raise CallFailed("bad_result", f"tool {tool.name!r}: input: {error}") from error
    if fault:
        raise CallFailed("bad_arguments", f"tool {tool.name!r}: {fault}")


def result(which: str, tool: Tool, given: Answer) -> None:
    """An answer is no error, is not too large, and fits the tool's output schema."""
    if given.is_error:
        said = given.text.strip().splitlines()
        text = short(said[0]) if said else "an error"
        raise CallFailed("tool_error", f"{which}: {text}", answer=given)
    if given.size > MAX_STRUCTURED:  # and is kept nowhere
        raise CallFailed(
            "bad_result",
            f"{which}: {given.size} bytes of structured content exceed {MAX_STRUCTURED}",
        )
    if tool.output_schema is None:
        return
    if given.structured is None:
        raise CallFailed(
            "bad_result", f"{which}: it promises structured content, and sent none", answer=given
        )
    try:
        fault = schema.wrong(tool.output_schema, given.structured, what="result")
    except schema.Unusable as error:
        raise CallFailed("bad_result", f"{which}: output: {error}", answer=given) from error
    if fault:
        raise CallFailed(
            "bad_result", f"{which}: its answer does not fit its schema: {fault}", answer=given
        )


def short(text: str) -> str:
    """A stranger's text as a part of an error: one line, cut off."""
    return " ".join(text[: 2 * MAX_SAID].split())[:MAX_SAID]
