"""`opsmesh exec`: the command line in front of `opsmesh.producers.exec`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from opsmesh.cli import output
from opsmesh.schemas import durations

#: For the command's registration: everything from the first word on belongs to the command.
CONTEXT: Final[dict[str, Any]] = {
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}


def exec_command(
    command: Annotated[
        list[str], typer.Argument(help="The command and its arguments.", metavar="COMMAND")
    ],
    timeout: Annotated[
        str | None, typer.Option(metavar="90s", help="Stop the command after this time.")
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="5s", help="Time between TERM and KILL after the time limit.")
    ] = "5s",
    workspace: Annotated[
        str | None, typer.Option(help="Workspace of the events; otherwise the current folder.")
    ] = None,
    pytest: Annotated[
        bool, typer.Option(help="Send failing tests of pytest and unittest runs below the command.")
    ] = True,
    marimo: Annotated[
        bool, typer.Option(help="Send what happens in marimo notebooks below the command.")
    ] = True,
) -> None:
    """Run a command; its failure or time-out becomes an event.

    The exit code is the command's own; 124 after a time-out.
    """
    from opsmesh.producers.exec import run

    limit = None if timeout is None else _seconds("--timeout", timeout)
    if limit == 0:
        limit = None
    raise typer.Exit(
        run.run(
            command,
            timeout=limit,
            grace=_seconds("--grace", grace),
            workspace=workspace,
            watch_pytest=pytest,
            watch_marimo=marimo,
        )
    )


def _seconds(option: str, text: str) -> float:
    try:
        return durations.parse(text)
    except durations.DurationError as error:
        output.fail(f"{option}: {error}", code=output.USAGE)
