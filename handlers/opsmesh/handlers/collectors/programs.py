"""`command`: what a program of the profile's writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import RootModel

from opsmesh.handlers.actions.arguments import Arguments
from opsmesh.handlers.actions.spec import Argv
from opsmesh.handlers.collectors.contract import Piece, Request


class CommandSpec(RootModel[Argv]):
    """The argument list."""


class CommandOutput:
    """Standard output, and standard error below it where there is any."""

    key: ClassVar[str] = "command"
    spec: ClassVar[type[CommandSpec]] = CommandSpec

    def __init__(self, spec: CommandSpec) -> None:
        self._program = spec.root[0]
        self._arguments = Arguments(spec.root)

    async def collect(self, request: Request) -> Sequence[Piece]:
        name = request.name or f"{Path(self._program).name}.txt"
        argv = self._arguments.render(request.ctx.variables)
        return [await request.output(argv, name=name)]
