"""`smoke_checks`: commands of the user's own, each run once, and which of them fail."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Argv, Duration, Spec
from opsmesh.handlers.collectors.contract import Piece, Request, said
from opsmesh.handlers.errors import Unstartable

#: Lines of a failing command that are told.
LINES: Final = 10


class SmokeChecksSpec(Spec):
    """The commands: argument lists, as everywhere; no shell."""

    commands: Annotated[list[Argv], Field(max_length=50)]
    each: Annotated[Duration, Field(gt=0, description="How long one may take.")] = 10.0


class SmokeChecks:
    """A line for each command. One whose program is not here is left out, and said."""

    key: ClassVar[str] = "smoke_checks"
    spec: ClassVar[type[SmokeChecksSpec]] = SmokeChecksSpec

    def __init__(self, spec: SmokeChecksSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        commands = [[request.render(part) for part in argv] for argv in self._spec.commands]
        each = min(self._spec.each, request.timeout_s * 0.9)
        gate = asyncio.Semaphore(4)

        async def one(argv: list[str]) -> tuple[str, str]:
            async with gate:
                return await _run(request, argv, each)

        ended = await asyncio.gather(*(one(argv) for argv in commands))
        text, counts = "", {"passed": 0, "failed": 0, "absent": 0}
        failed = []
        for argv, (how, detail) in zip(commands, ended, strict=True):
            shown = shlex.join(argv)
            counts[how] += 1
            text += f"{how:<7} {shown}\n{detail}"
            if how == "failed":
                failed.append(shown[:200])
        facts: dict[str, Any] = {**counts, "commands": failed}
        return [request.piece(text or "no commands are listed\n", facts=facts)]


async def _run(request: Request, argv: list[str], limit: float) -> tuple[str, str]:
    try:
        ended = await request.run(argv, timeout_s=limit)
    except Unstartable as error:
        return "absent", f"        {error.reason}\n"
    if ended.ok:
        return "passed", ""
    why = f"stopped after {limit:g} s" if ended.timed_out else f"exit code {ended.exit_code}"
    if ended.signal and not ended.timed_out:
        why = f"killed by {ended.signal}"
    tail = said(ended).decode(errors="replace").strip().splitlines()[-LINES:]
    return "failed", "".join(f"        {line}\n" for line in (why, *tail))
