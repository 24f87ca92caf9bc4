"""`opsmesh top`, the command: what must be there before a screen is taken over."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import structlog
import typer

from opsmesh.cli import output, session
from opsmesh.handlers.errors import ExtraMissing
from opsmesh.router.settings import Settings


class Start(StrEnum):
    """The views, in the order of their keys."""

    events = "events"
    profiles = "profiles"
    runs = "runs"
    dlq = "dlq"
    approvals = "approvals"
    producers = "producers"
    mesh = "mesh"


def top(
    view: Annotated[Start, typer.Argument(help="What to begin with.")] = Start.events,
    wanted: Annotated[
        str,
        typer.Option(
            "--filter",
            "-f",
            metavar="WORDS",
            help="Only what matches: topics with wildcards, or text; ! before a word is without.",
        ),
    ] = "",
    host: Annotated[
        list[str] | None,
        typer.Option("--host", "-H", help="Only of these hosts; * stands for anything: 'web*'."),
    ] = None,
    light: Annotated[
        bool | None,
        typer.Option(
            "--light/--dark",
            help="Colours of its own. Without: those of the terminal.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """The mesh on a terminal: events, profiles, runs, dead letters, approvals, producers.

    Keys are as in vi, k9s and lazygit; ? shows them. It answers approvals (y, n), sends dead
    letters again or gives them up (r, d), and waits for a broker that is away.

    On a leaf host it shows the host's own broker: opsmesh --hub top shows the hub's.

    Needs the extra `tui`. For scripts: opsmesh status --json, opsmesh tail --json.

    Examples: opsmesh top
              opsmesh top approvals
              opsmesh top --filter 'python.> !info'
              opsmesh --hub top --host 'web*' --host db1
    """
    try:
        from opsmesh.cli.top.app import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise ExtraMissing("tui", str(error)) from error
    if not (sys.stdin.isatty() and sys.stderr.isatty()):  # Textual draws on standard error
        output.fail(
            "top needs a terminal",
            hint="in a script: opsmesh status --json, opsmesh tail --json",
            code=output.USAGE,
        )
    from opsmesh.cli.top.doing import Doing
    from opsmesh.cli.top.themes import theme
    from opsmesh.cli.view.follower import Follower
    from opsmesh.cli.view.model import View

    # what is logged would be written over the screen
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    settings, shown = Settings(), View()
    hub = session.hub_endpoint(settings)
    follower = Follower(shown, settings, hub=hub, hosts=host or ())
    Top(
        shown,
        Doing(settings, lambda: follower.client),
        follow=follower.run,
        look=follower.look,
        theme=theme(os.environ, light=light),
        start=view.value,
        wanted=wanted,
    ).run()
