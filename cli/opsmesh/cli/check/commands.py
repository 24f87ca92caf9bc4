"""`opsmesh check`: its commands. What agents may have checked over MCP is `opsmesh checks`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from opsmesh.cli import output
from opsmesh.cli.check import deps, lint

#: Commands of `opsmesh checks`, for whoever leaves out its s.
AGENTS = ("serve", "ls")


class Group(TyperGroup):
    """Knows what belongs to the other command of nearly the same name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in AGENTS:
            output.fail(
                f"check has no command {args[0]}",
                hint=f"checks for agents, over MCP: opsmesh checks {args[0]}",
                code=output.USAGE,
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="""Lint a Python project, audit what it needs; what is found is an event.

    Example: opsmesh check lint src
    """,
    epilog="Checks that agents may have run over MCP are another command: opsmesh checks",
)
app.command("lint")(lint.lint)
app.command("deps")(deps.deps)
