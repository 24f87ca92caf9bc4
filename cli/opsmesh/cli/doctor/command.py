"""`opsmesh doctor`: the installation and this machine, one line a check, with what mends it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import config, output
from opsmesh.cli.doctor import agents as agents_check
from opsmesh.cli.doctor import broker as broker_checks
from opsmesh.cli.doctor import checks
from opsmesh.cli.doctor import desktop as desktop_check
from opsmesh.cli.doctor import marimo as marimo_check
from opsmesh.cli.doctor import probe as wired_probe
from opsmesh.cli.doctor import wired as wired_checks
from opsmesh.cli.doctor.checks import Check
from opsmesh.cli.hub import health as hub_health
from opsmesh.handlers.errors import ConfigError
from opsmesh.router import topology
from opsmesh.router.settings import Settings

_MARKS = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]–[/]"}


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Let streams whose messages are gone start anew.")
    ] = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Also make wired tools speak: starts a shell, fails a command in it."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Check the installation and this machine. Exit code: 0 when nothing is wrong, else 1.

    Example: opsmesh doctor --probe
    """
    found = list(checks.machine())
    found += checks.guard(desktop_check.NAME, desktop_check.desktop)
    found += checks.guard(agents_check.HOOKS, agents_check.hooks)
    found += checks.guard(agents_check.CODEX, agents_check.codex)
    found += checks.guard(marimo_check.NAME, marimo_check.plugin)
    found += checks.guard("shipped profiles", _shipped)
    found += checks.guard("certificate", lambda: iter(hub_health.certificate()))
    if not config.mistakes():
        settings = Settings()
        found += checks.guard("producers", lambda: wired_checks.producers(settings))
        found += checks.guard("language servers", wired_checks.proxies)
        found += checks.guard("tools", lambda: wired_checks.wired(wired_checks.ask(settings)))
    lost: list[str] = []
    try:
        more, lost = asyncio.run(broker_checks.check(Settings()))
        found += more
        if probe:
            found += asyncio.run(wired_probe.probe(Settings()))
    except (ConfigError, ValidationError, SettingsError):
        pass  # the check of the settings says it
    if accept_loss:
        _accept(lost, yes=yes)
        return
    if json:
        output.as_json([vars(check) for check in found])
    else:
        _print(found)
    raise typer.Exit(output.FAILED if any(check.ok is False for check in found) else 0)


def _shipped() -> Iterator[Check]:
    """Profiles that come with opsmesh, fit this machine, and are not in force: no fault."""
    from opsmesh.cli.profiles import shipped

    if names := shipped.not_enabled():
        detail = f"not enabled: {', '.join(names)}"
        fix = "opsmesh profile enable --shipped PROFILE"
        yield Check(check="shipped profiles", ok=None, detail=detail, fix=fix)


def _print(found: list[Check]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for check in found:
        line = f"{_MARKS[check.ok]} {escape(check.check):<20} {escape(check.detail)}"
        console.print(line)
        if check.fix and not check.ok:
            console.print(f"    [dim]{escape(check.fix)}[/]")
    wrong = sum(check.ok is False for check in found)
    console.print(f"\n{wrong} wrong" if wrong else "\nnothing is wrong")


def _accept(lost: list[str], *, yes: bool) -> None:
    if not lost:
        print("no stream is missing messages that were known: nothing to accept")
        return
    known = topology.Known(topology.known_file())
    for name in lost:
        print(f"{name}: messages up to sequence {known.last_seq(name)} were known")
    if not yes:
        typer.confirm("Are they lost for good, and may these streams start anew?", abort=True)
    known.forget(lost)
    print(f"accepted the loss of {', '.join(lost)}; the agent creates what is missing")
