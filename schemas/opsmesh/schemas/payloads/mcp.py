"""mcp.*: calls of tools of MCP servers."""

from __future__ import annotations

from typing import Annotated, Any, Final

from opsmesh.schemas.topics import Payload, Topic, doc

_Server = Annotated[str, doc("the server's name in the settings")]
_Tool = Annotated[str, doc("the tool's name at the server")]
_Duration = Annotated[float | None, doc("run time, milliseconds")]


class McpToolCompleted(Payload, frozen=True, kw_only=True):
    """A tool answered."""

    server: _Server
    tool: _Tool
    structured: Annotated[
        Any, doc("its structured content, which fits its output schema where it has one")
    ] = None
    text: Annotated[str, doc("the texts of its answer, cut off after 8192 characters")] = ""
    truncated: Annotated[bool, doc("the text was longer")] = False
    is_error: Annotated[bool, doc("always false here")] = False
    parts: Annotated[list[str] | None, doc("what else there was: kind, type and size")] = None
    refused: Annotated[
        list[str] | None, doc("what the server asked for meanwhile and did not get")
    ] = None
    duration_ms: _Duration = None


class McpToolFailed(Payload, frozen=True, kw_only=True):
    """A tool was not called, or did not answer well."""

    server: _Server
    tool: _Tool
    kind: Annotated[
        str,
        doc(
            "tool_error, unknown_tool, unknown_server, dead_server, timeout, bad_arguments or "
            "bad_result"
        ),
    ]
    error: Annotated[str, doc("what was wrong")]
    then: Annotated[str | None, doc("what the profile makes of it: retry, fail or dlq")] = None
    text: Annotated[str | None, doc("what the tool said, where it answered")] = None
    duration_ms: _Duration = None


TOPICS: Final = (
    Topic(
        "mcp.tool.completed",
        payload=McpToolCompleted,
        owner="opsmesh",
        severity="info",
        description="A tool of an MCP server answered to a step of a profile.",
        example={
            "server": "time",
            "tool": "get_current_time",
            "structured": {"timezone": "UTC", "datetime": "2026-11-27T16:48:19+00:00"},
            "text": '{"timezone": "UTC", "datetime": "2026-11-27T16:48:19+00:00"}',
            "duration_ms": 3.4,
        },
    ),
    Topic(
        "mcp.tool.failed",
        payload=McpToolFailed,
        owner="opsmesh",
        severity="warn",
        description="A tool of an MCP server was not called by a step, or did not answer well.",
        example={
            "server": "checks",
            "tool": "validate_schema",
            "kind": "dead_server",
            "error": "server 'checks' was killed by SIGKILL",
            "then": "retry",
            "duration_ms": 812.0,
        },
    ),
)
