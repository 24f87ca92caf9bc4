"""`opsmesh status`: the verdict first, then what is wrong and what mends it, then the parts.

Exit codes: 0 ok, 1 degraded, 69 down.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from opsmesh.cli import health, losses, output
from opsmesh.cli.hub import health as hub_health
from opsmesh.cli.spool import words as spool_words
from opsmesh.router.settings import Settings

EXIT = {"ok": 0, "degraded": output.FAILED, "down": output.UNAVAILABLE}
#: Seconds between two looks of --watch.
WATCH_EVERY = 1.0
#: Approvals that are shown one by one.
SHOWN = 5

_COLOURS = {
    "ok": "green",
    "running": "green",
    "enabled": "green",
    "degraded": "yellow",
    "starting": "yellow",
    "shadow": "yellow",
    "disabled": "dim",
}


def status(
    json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every second.")] = False,
) -> None:
    """Whether the mesh is well, and if not, what to do. Exit code: 0 ok, 1 degraded, 69 down."""
    if watch and json:
        raise typer.BadParameter("--watch is for people: call status --json again instead")
    settings = Settings()
    while True:
        found = asyncio.run(health.check(settings))
        if json:
            output.as_json(found.as_dict())
        elif watch:
            _fill(output.Screen(highlight=False), found)
        else:
            _print(Console(highlight=False, soft_wrap=True), found)
        if not watch:
            raise typer.Exit(EXIT[found.verdict])
        time.sleep(WATCH_EVERY)


def _fill(console: Console, found: health.Health) -> None:
    """One screen of it, and no more: what scrolled away first would be the verdict."""
    if not console.is_terminal:
        _print(console, found)
        return
    with console.capture() as held:
        _print(console, found)
    lines = held.get().splitlines()
    room = console.height - 1
    if len(lines) > room:
        rest = len(lines) - room + 1
        lines = [*lines[: room - 1], f"… {rest} lines more: opsmesh status"]
    # from the top, each line to its end, then the rest of the screen: nothing flickers
    shown = "".join(f"{line}\x1b[K\n" for line in lines)
    sys.stdout.write(f"\x1b[H{shown}\x1b[J")
    sys.stdout.flush()


def _print(console: Console, found: health.Health) -> None:
    since = f" since {output.local(found.started)}" if found.started else ""
    where = f" · NATS at {found.nats_url}" if found.nats_url else ""
    if found.manager:
        where += f" · units of systemd ({found.manager})"
    colour = _COLOURS.get(found.verdict, "red")
    console.print(f"[bold {colour}]{found.verdict}[/]{since}{escape(where)}")
    for problem in found.problems:
        console.print(
            f"  [red]✗[/] {escape(problem['what'])}\n    [dim]{escape(problem['fix'])}[/]"
        )
    _losses(console, found)
    for one in found.approvals[:SHOWN]:
        console.print(
            f"  [magenta]?[/] {escape(one['prompt'])} [dim]({escape(one['profile'])})[/]\n"
            f"    [dim]opsmesh approve {one['id']}, or opsmesh deny {one['id']}[/]"
        )
    if (more := len(found.approvals) - SHOWN) > 0:
        console.print(f"    [dim]and {more} more wait for an answer: opsmesh approvals ls[/]")
    if found.components:
        console.print()
        waiting = [c["name"] for c in found.components if c["state"] == "waiting"]
        rows = [{**c, "since": c["since"] and output.local(c["since"])} for c in found.components]
        rows = [row for row in rows if row["name"] not in waiting]
        shown = ("name", "state", "pid", "restarts", "since", "last_exit")
        output.table(rows, shown, empty="", style=_style, to=console)
        if waiting:
            names = ", ".join(name.removeprefix("producer:") for name in waiting)
            console.print(f"[dim]waiting for their tools: {escape(names)}[/]")
    if found.spool:
        console.print()
        for line in spool_words.lines(found.spool, found.agent):
            console.print(escape(line))
    if said := hub_health.line(found.mesh):
        console.print(escape(said))
    if found.streams:
        console.print()
        rows = [{"stream": name, **facts} for name, facts in found.streams.items()]
        output.table(rows, ("stream", "messages", "last_seq"), empty="", to=console)
    if found.profiles:
        console.print()
        rows = [
            {
                "profile": one["profile"] + (" · candidate" if one["kind"] != "profile" else ""),
                "state": one["state"],
                "waiting": one["waiting"],
                "health": one["detail"],
            }
            for one in found.profiles
        ]
        output.table(
            rows, ("profile", "state", "waiting", "health"), empty="", style=_style, to=console
        )
    if rest := [one for one in found.consumers if one["verdict"] is None]:
        console.print()
        columns = ("profile", "pending", "ack_pending", "stale")
        output.table(rest, columns, empty="", style=_style, to=console)


def _losses(console: Console, found: health.Health) -> None:
    """What was lost in the last day, and what a stream removes: facts, and not the verdict."""
    for gap in found.gaps[-losses.SHOWN :]:
        console.print(f"  [yellow]![/] {escape(gap['what'])}")
        if gap["filled"]:
            console.print(f"    [green]{escape(gap['filled'])}[/]")
        console.print(f"    [dim]{escape(gap['fix'])}[/]")
    if (more := len(found.gaps) - losses.SHOWN) > 0:
        console.print(f"    [dim]and {more} more in the last day: opsmesh status --json[/]")
    for one in found.full:
        console.print(f"  [yellow]![/] {escape(one['what'])}")
        if one["fix"]:
            console.print(f"    [dim]{escape(one['fix'])}[/]")


def _style(column: str, value: Any) -> str:
    if column == "state":
        return _COLOURS.get(value, "red")
    return "yellow" if (column == "stale" and value) or (column == "restarts" and value) else ""
