"""The contract between `collect` and a collector, ours or a stranger's.

A collector is made once, when its profile is loaded, and asked once a bundle. It returns its
pieces, or raises: whatever it raises stands in the manifest as its error, and the other pieces are
there all the same. Time and size are bounded by who asks, secrets are taken out after it returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import BaseModel

from opsmesh.handlers import process
from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.errors import HandlersError, Unstartable
from opsmesh.handlers.process import ProcessResult
from opsmesh.handlers.template import Template


class Unavailable(HandlersError):
    """There is nothing to collect here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One collected thing: the name of its file, where it came from, and its bytes or why there are
    none. `facts` are what a program can use of it: small, and JSON."""

    name: str
    source: str
    data: bytes | None = None
    command: tuple[str, ...] | None = None
    path: str | None = None
    exit_code: int | None = None
    truncated: bool = False
    error: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    #: What the collector took out itself, by rule; the writer counts what it takes out on top.
    removed: Mapping[str, int] = field(default_factory=dict)
    #: Its marks are the same from bundle to bundle, so that texts can be compared (`earlier`).
    steady: bool = False
    #: What a report calls it: set by who asks.
    key: str = ""
    duration_ms: float = 0.0

    def without_error(self) -> Self:
        """The same piece, its exit code taken as good."""
        return replace(self, error=None)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a collector is asked for: by which step, for which file, and within which limits."""

    ctx: StepContext
    #: The environment of the programs that it starts.
    env: Mapping[str, str]
    #: The collector's own word.
    source: str
    #: What the profile calls the piece, if it does.
    name: str | None
    #: Seconds after which nobody waits any more; a program that is started gets less.
    timeout_s: float
    #: Bytes that are kept of each piece.
    max_bytes: int

    def render(self, text: str) -> str:
        """The text with its placeholders answered; TemplateError where one cannot be."""
        return Template(text).render_text(self.ctx.variables)

    def piece(self, data: bytes | str | None, *, suffix: str = ".txt", **more: Any) -> Piece:
        """A piece under the profile's name for it, or under the collector's own."""
        if isinstance(data, str):
            data = data.encode(errors="surrogateescape")
        more.setdefault("name", self.name or f"{self.source}{suffix}")
        return Piece(source=self.source, data=data, **more)

    def beside(self, data: bytes | str, suffix: str, **more: Any) -> Piece:
        """A further piece, named after the first: `git_state.diff`."""
        stem = (self.name or self.source).partition(".")[0]
        return self.piece(data, name=f"{stem}{suffix}", **more)

    async def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        cwd: Path | None = None,
    ) -> ProcessResult:
        """Run a program; Unstartable when it is not there."""
        return await process.run(
            argv,
            env=self.env if env is None else env,
            cwd=cwd or self.ctx.workdir,
            timeout=self.timeout_s if timeout_s is None else timeout_s,
            output_limit=self.max_bytes,
        )

    async def output(self, argv: Sequence[str], **more: Any) -> Piece:
        """What a program writes: standard output, and standard error below it where there is any.
        A program that is not there, or that fails, is the piece's error."""
        try:
            ended = await self.run(argv)
        except Unstartable as error:
            return self.piece(None, command=tuple(argv), error=error.reason, **more)
        return self.piece(
            said(ended),
            command=tuple(argv),
            exit_code=ended.exit_code,
            truncated=ended.truncated,
            error=why(ended, self.timeout_s),
            **more,
        )


@runtime_checkable
class Collector(Protocol):
    """One kind of evidence."""

    #: The word that names it in `collect`; the entry point's name.
    key: ClassVar[str]
    #: The pydantic model of the value under the word. Can all of it be left out, then the word
    #: alone is enough.
    spec: ClassVar[type[BaseModel]]

    def __init__(self, spec: Any) -> None:
        """Made of a valid value; ValueError where it cannot be after all."""

    async def collect(self, request: Request) -> Sequence[Piece]:
        """The pieces, the one that its word means first; or an exception whose text says why there
        are none."""


def said(ended: ProcessResult) -> bytes:
    """What a program wrote: standard output, and standard error below it where there is any."""
    data = ended.stdout
    if ended.stderr:
        newline = b"" if data.endswith(b"\n") or not data else b"\n"
        data += newline + b"--- stderr\n" + ended.stderr
    return data


def why(ended: ProcessResult, timeout_s: float) -> str | None:
    """Why a program did not end well; None when it did."""
    if ended.timed_out:
        return f"stopped after {timeout_s:g} s"
    if ended.ok:
        return None
    return f"killed by {ended.signal}" if ended.signal else f"exit code {ended.exit_code}"
