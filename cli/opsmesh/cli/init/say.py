"""What `opsmesh init` says: what it found and would do, and what to try at the end."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.init import settings
from opsmesh.cli.init.look import Look, Tool

#: Makes a first event, and shows it.
TRY: Final = "opsmesh exec -- ls /nowhere; opsmesh tail --since 1m --no-follow"
#: The extras of what shows the mesh, each with a module of it.
VIEWS: Final = {"tui": "textual", "web": "starlette"}
#: Files of a tool that are shown one by one.
SHOWN: Final = 6
#: What every producer may tell: it says nothing of a tool.
_COMMON: Final = "mesh."


def show(found: Look, offered: Sequence[Tool], *, refused: Sequence[str]) -> None:
    """What was found, and what would be done."""
    console = output.console()
    console.print(f"[bold]{escape(found.host)}[/]: what opsmesh can listen to here")
    for one in found.heard:
        console.print(f"  [green]✓[/] {one.name:<12} {escape(one.description)}")
    for name in found.wired:
        if name not in {one.name for one in found.heard}:
            console.print(f"  [green]✓[/] {name:<12} [dim]wired[/]")
    if offered:
        console.print("\nIt hears these once a file of its own, or one marked line, is there:")
        for tool in offered:
            console.print(f"  [cyan]+[/] {tool.name:<12} {escape(tool.description)}")
            for line in _files(tool):
                console.print(f"      [dim]{escape(line)}[/]")
    unset = settings.unset(found.absent)
    if unset:
        console.print(
            f"\nThey lint and audit a Python project when it changes: {', '.join(unset)}"
            "\n      [dim]opsmesh init --project FOLDER[/]"
        )
    if found.system:
        console.print("\nLeft to root, and rarely needed:")
        for tool in found.system:
            console.print(f"  [dim]·[/] {tool.name:<12} {escape(tool.description)}")
    for name, why in found.troubles.items():
        console.print(f"  [yellow]![/] {name:<12} {escape(why)}")
    known = {*found.wired, *unset}
    if absent := [name for name in found.absent if name not in known]:
        console.print(
            f"\n[dim]not here, heard once they come: {', '.join(absent)} "
            "(opsmesh producer ls says why)[/]"
        )
    if refused:
        console.print(f"[dim]not wanted: {', '.join(refused)} (opsmesh init --ask-again)[/]")
    if found.profiles is not None:
        path = _home(found.profiles)
        console.print(f"\n[cyan]+[/] {escape(path)}: what runs when something happens")
    if not found.runs:
        console.print("[cyan]+[/] the mesh is started")


def about(found: Look, chosen: Sequence[Tool]) -> str:
    """A comment for profiles.yaml: what can stand in `on:` on this machine."""
    heard = sorted([(h.name, h.topics) for h in found.heard] + [(t.name, t.topics) for t in chosen])
    rows = [
        (name, [one for one in topics if not one.startswith(_COMMON)]) for name, topics in heard
    ]
    lines = [f"#   {name:<12} {', '.join(topics)}" for name, topics in rows if topics]
    return "\n".join(("# Heard on this machine when `opsmesh init` wrote this, by tool:", *lines))


def what_next(*, runs: bool, wired: Collection[str]) -> None:
    """The last lines: how a first event is made, and seen."""
    console = output.console()
    program = Path(sys.executable).with_name("opsmesh")
    if shutil.which("opsmesh") is None and program.is_file():
        console.print(f'\nto have opsmesh on your PATH:\n  export PATH="{program.parent}:$PATH"')
    if not runs:
        console.print("\nthe mesh does not run yet:\n  opsmesh up --detach")
    console.print(f"\ntry it: a command that fails is your first event\n  {TRY}")
    if "shell" in wired:
        console.print("[dim]or open a new shell, fail a command in it, and look again[/]")
    absent = [extra for extra, module in VIEWS.items() if find_spec(module) is None]
    console.print(
        "watch what happens: opsmesh top, or opsmesh web --open"
        + (f" [dim](extras {', '.join(absent)}; in a checkout: make extras)[/]" if absent else "")
    )
    console.print(
        "[dim]then: opsmesh status · opsmesh profile ls · opsmesh profile ls --shipped · "
        "opsmesh producer ls[/]"
    )


def _files(tool: Tool) -> list[str]:
    """What would be written, in a few lines: a plug-in has dozens of files."""
    if len(tool.files) <= SHOWN:
        return [_home(path) for path in tool.files]
    folder = Path(os.path.commonpath(tool.files))
    return [f"{_home(folder)}/ ({len(tool.files)} files)"]


def _home(path: Path) -> str:
    """A path as people write it."""
    home, text = str(Path.home()), str(path)
    return f"~{text.removeprefix(home)}" if text.startswith(f"{home}/") else text
