"""What gets the pieces of an evidence bundle. A collector never raises: a piece holds its error."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from opsmesh.handlers import process
from opsmesh.handlers.actions.bundle import Piece
from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.errors import TemplateError, Unstartable
from opsmesh.handlers.process import ProcessResult
from opsmesh.handlers.template import Template

#: Seconds a collected command may take: one that hangs must not cost the other pieces.
TIMEOUT_S: Final = 10.0
#: Bytes kept of a collected command's output.
OUTPUT_LIMIT: Final = 1024 * 1024
#: Seconds of journal before the event.
JOURNAL_SINCE_S: Final = 600.0
#: Last lines of that.
JOURNAL_LINES: Final = 200

# systemd.unit(5): the characters of a unit's name. A payload's text could hold options or globs.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,254}")


class Collector(Protocol):
    """Gets one piece of a bundle."""

    async def collect(self, ctx: StepContext, env: Mapping[str, str]) -> Piece:
        """The piece; what went wrong is in its `error`."""


class CommandOutput:
    """What a program writes: standard output, and standard error below it where there is any."""

    def __init__(self, argv: Sequence[str], *, name: str | None, timeout_s: float) -> None:
        self._argv = [Template(argument) for argument in argv]
        self._name = name or f"{Path(argv[0]).name}.txt"
        self._timeout_s = timeout_s

    async def collect(self, ctx: StepContext, env: Mapping[str, str]) -> Piece:
        try:
            argv = [argument.render_text(ctx.variables) for argument in self._argv]
        except TemplateError as error:
            return Piece(name=self._name, source="command", error=str(error))
        return await _output(
            argv, name=self._name, source="command", ctx=ctx, env=env, timeout_s=self._timeout_s
        )


class FileCopy:
    """A file; of one that is larger than the limit, its end."""

    def __init__(self, path: str, *, name: str | None, max_bytes: int) -> None:
        self._path = Template(path)
        self._name = name
        self._max_bytes = max_bytes

    async def collect(self, ctx: StepContext, env: Mapping[str, str]) -> Piece:
        name = self._name or "file"
        try:
            text = self._path.render_text(ctx.variables)
        except TemplateError as error:
            return Piece(name=name, source="file", error=str(error))
        try:
            path = Path(ctx.event.workspace or "/", Path(text).expanduser())
            name = self._name or path.name or name
            data, size = await asyncio.to_thread(_read_end, path, self._max_bytes)
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return Piece(name=name, source="file", path=text, error=f"{text}: {reason}")
        truncated = size > len(data)
        return Piece(name=name, source="file", path=str(path), data=data, truncated=truncated)


class Journal:
    """Lines of the journal up to the event, and a little after."""

    def __init__(
        self, *, name: str | None, unit: str | None, since_s: float, lines: int, timeout_s: float
    ) -> None:
        self._name = name or "journal.txt"
        self._unit = None if unit is None else Template(unit)
        self._since_s = since_s
        self._lines = lines
        self._timeout_s = timeout_s

    async def collect(self, ctx: StepContext, env: Mapping[str, str]) -> Piece:
        since = max(0.0, ctx.event.ts_us / 1e6 - self._since_s)
        argv = ["journalctl", "--no-pager", "--quiet", "--output=short-iso-precise"]
        argv += [f"--since=@{since:.0f}", f"--lines={self._lines}"]
        try:
            unit = _unit(self._unit, ctx)
        except (TemplateError, ValueError) as error:
            return Piece(name=self._name, source="journal", error=str(error))
        if unit:
            argv.append(f"--user-unit={unit}" if _is_user(ctx) else f"--unit={unit}")
        return await _output(
            argv, name=self._name, source="journal", ctx=ctx, env=env, timeout_s=self._timeout_s
        )


class Unit:
    """`systemctl status` or `systemctl cat` of a unit, of the user's manager where it is there."""

    def __init__(self, verb: str, *, name: str | None, unit: str | None, timeout_s: float) -> None:
        self._verb = verb
        self._source = "unit_status" if verb == "status" else "unit_file"
        self._name = name or f"{self._source}.txt"
        self._unit = None if unit is None else Template(unit)
        self._timeout_s = timeout_s

    async def collect(self, ctx: StepContext, env: Mapping[str, str]) -> Piece:
        try:
            unit = _unit(self._unit, ctx)
        except (TemplateError, ValueError) as error:
            return Piece(name=self._name, source=self._source, error=str(error))
        if not unit:
            return Piece(
                name=self._name, source=self._source, error="the event's payload names no unit"
            )
        argv = ["systemctl", *(["--user"] if _is_user(ctx) else []), "--no-pager", "--full"]
        piece = await _output(
            [*argv, self._verb, "--", unit],
            name=self._name,
            source=self._source,
            ctx=ctx,
            env=env,
            timeout_s=self._timeout_s,
        )
        # systemctl(1): status exits with 3 for a unit that is not active, which is no error here
        if self._verb == "status" and piece.exit_code == 3 and piece.data:
            return piece.without_error()
        return piece


async def _output(
    argv: list[str],
    *,
    name: str,
    source: str,
    ctx: StepContext,
    env: Mapping[str, str],
    timeout_s: float,
) -> Piece:
    try:
        ended = await process.run(
            argv, env=env, cwd=ctx.workdir, timeout=timeout_s, output_limit=OUTPUT_LIMIT
        )
    except Unstartable as error:
        return Piece(name=name, source=source, command=tuple(argv), error=error.reason)
    data = ended.stdout
    if ended.stderr:
        data += (
            (b"" if data.endswith(b"\n") or not data else b"\n") + b"--- stderr\n" + ended.stderr
        )
    return Piece(
        name=name,
        source=source,
        command=tuple(argv),
        exit_code=ended.exit_code,
        data=data,
        truncated=ended.truncated,
        error=_why(ended, timeout_s),
    )


def _why(ended: ProcessResult, timeout_s: float) -> str | None:
    if ended.timed_out:
        return f"stopped after {timeout_s:g} s"
    if ended.ok:
        return None
    return f"killed by {ended.signal}" if ended.signal else f"exit code {ended.exit_code}"


def _read_end(path: Path, limit: int) -> tuple[bytes, int]:
    # O_NONBLOCK: opening a named pipe would wait for its other end
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("not a regular file")
        file.seek(max(0, facts.st_size - limit))
        data = file.read(limit)
        return data, max(facts.st_size, len(data))


def _unit(chosen: Template | None, ctx: StepContext) -> str:
    if chosen is not None:
        unit = chosen.render_text(ctx.variables)
    else:
        unit = str(ctx.event.payload.get("unit") or "")
    if unit and not _UNIT.fullmatch(unit):
        raise ValueError(f"{unit[:80]!r} is not the name of a unit")
    return unit


def _is_user(ctx: StepContext) -> bool:
    return ctx.event.payload.get("manager") == "user"
