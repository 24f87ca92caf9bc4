"""Commands that are imported when they are called: `--help` and a slip cost no imports.

A command whose module cannot be imported fails alone, with its reason; the others go on.
"""

from __future__ import annotations

import gc
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from opsmesh.cli import output

_INDENTED = re.compile(r"^[ \b]", re.MULTILINE)
_BREAK = re.compile(r"\n(?!Example)")


@dataclass(frozen=True)
class Lazy:
    """One command: where it is defined (`module:attribute`), and what help says of it.

    The attribute is a Typer app, a function to make a command of, or with `raw` a function that
    returns the exit code; its parameter, if it has one, is the list of arguments as they stand.
    """

    target: str
    help: str
    panel: str = "Mesh"
    hidden: bool = False
    raw: bool = False
    #: Options end at the first argument: what follows belongs to another program.
    passes_on: bool = False

    def stand_in(self, name: str) -> TyperCommand:
        """What help lists."""
        return TyperCommand(
            name, help=self.help, rich_help_panel=self.panel, hidden=self.hidden, callback=None
        )

    def load(self, name: str) -> Any:
        """The command itself; ends with an error when it cannot be imported."""
        module, _, attribute = self.target.partition(":")
        try:
            found = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, SyntaxError) as error:
            output.fail(
                f"the command {name} cannot be loaded: {type(error).__name__}: {error}",
                hint="the installation is incomplete: opsmesh doctor",
            )
        if not gc.isenabled():  # `entry` began without
            gc.freeze()
            gc.enable()
        if isinstance(found, typer.Typer):
            top = typer.Typer(add_completion=False)  # completion is the top command's alone
            top.add_typer(found, name=name)
            group = typer.main.get_group(top).commands[name]
            group.name = name
            return _reflowed(group)
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        if self.raw:
            app.command(
                name,
                help=self.help,
                add_help_option=False,
                context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            )(_raw(found))
        else:
            settings = {"allow_interspersed_args": False} if self.passes_on else None
            app.command(name, context_settings=settings)(found)
        return _reflowed(typer.main.get_command(app))


def _reflowed(command: Any) -> Any:
    """With each paragraph of its help on one line: typer folds the first one to the terminal's
    width, and breaks the others where the source does. Examples and what is indented stay."""
    if command.help:
        command.help = "\n\n".join(
            part if _INDENTED.search(part) else _BREAK.sub(" ", part)
            for part in command.help.split("\n\n")
        )
    for each in getattr(command, "commands", {}).values():
        _reflowed(each)
    return command


def _raw(main: Callable[..., int | None]) -> Callable[[typer.Context], None]:
    def command(context: typer.Context) -> None:
        arguments = [context.args] if inspect.signature(main).parameters else []
        raise typer.Exit(main(*arguments) or 0)

    return command


def group(commands: Mapping[str, Lazy]) -> type[TyperGroup]:
    """A Typer group class with these commands."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = {name: lazy.stand_in(name) for name, lazy in commands.items()}

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            if name is not None and name in commands:
                command = commands[name].load(name)
            return name, command, rest

    return LazyGroup
