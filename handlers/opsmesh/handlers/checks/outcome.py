"""How a check's program ended, as every answer has it: bounded, and without secrets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from mcp_types import CallToolResult
from pydantic import BaseModel, Field

from opsmesh.handlers.errors import Unstartable
from opsmesh.handlers.mcp_serve.answers import Refused, answer
from opsmesh.handlers.process import ProcessResult
from opsmesh.schemas.redact import Redactor

#: Characters of output that are told: its end is what tells.
SHOWN: Final = 6000


class Ended(BaseModel):
    """How a program ended."""

    ok: bool
    exit_code: int | None = None
    signal: str | None = None
    timed_out: bool = False
    duration_ms: float
    output: str = Field(default="", description="the end of what it wrote")
    output_cut: bool = False


async def started(run: Callable[[], Awaitable[ProcessResult]]) -> ProcessResult:
    """How the program ended; Refused when it, or its sandbox, cannot be had."""
    try:
        return await run()
    except Unstartable as error:
        hint = ""
        if "bwrap" in error.reason:
            hint = "install bubblewrap, or checks: {sandbox: none} in config.yaml"
        raise Refused(error.reason, hint=hint) from None


def facts(ended: ProcessResult) -> dict[str, Any]:
    """The fields of Ended."""
    out, err = text(ended.stdout), text(ended.stderr)
    return {
        "ok": ended.ok,
        "exit_code": ended.exit_code,
        "signal": ended.signal,
        "timed_out": ended.timed_out,
        "duration_ms": ended.duration_ms,
        "output": f"{out}\n--- stderr\n{err}" if err and out else out or err,
        "output_cut": ended.truncated,
    }


def text(data: bytes) -> str:
    """The end of an output."""
    return data.decode(errors="replace").rstrip()[-SHOWN:]


def told(found: BaseModel, redactor: Redactor) -> CallToolResult:
    """The answer, without secrets."""
    clean, _ = redactor.redact(found.model_dump(mode="json"))
    return answer(type(found).model_validate(clean))
