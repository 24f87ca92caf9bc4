"""`opsmesh install` and `uninstall`: a tool's own half, shown first, and undone exactly."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.syntax import Syntax

from opsmesh.cli import components, output
from opsmesh.producers import wirings
from opsmesh.producers.install import apply, plan
from opsmesh.producers.install import record as records
from opsmesh.producers.install.plan import Change
from opsmesh.producers.wiring import Wiring
from opsmesh.router import supervisor_state
from opsmesh.router.settings import Settings
from opsmesh.schemas.nearest import nearest

_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show it, and write nothing.")]
_Force = Annotated[
    bool,
    typer.Option("--force", help="Replace or remove a file that is not ours, keeping a copy."),
]
_Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]


def install(
    tools: Annotated[
        list[str] | None, typer.Argument(metavar="[TOOL]...", help="As in `install --list`.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", "-l", help="The tools, and how far each is wired.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say what is stale; exit code 1 when something is.")
    ] = False,
    yes: _Yes = False,
    dry_run: _DryRun = False,
    force: _Force = False,
    json: _Json = False,
) -> None:
    """Wire a tool: write its own half, after showing it and asking.

    Only files of our own in folders that the tool reads, and one marked line where it has no such
    folder. `opsmesh uninstall TOOL` undoes exactly that.

    Example: opsmesh install shell
    """
    found = wirings.discover()
    for name, reason in found.problems.items():
        output.note(f"skipped {name}: broken: {reason}")
    if check or list_ or not tools:
        rows = [_row(name, found.wirings.get(name)) for name in _chosen(tools, found, check=check)]
        _report(rows, json=json)
        wrong = any(row["state"] in ("stale", "edited", "incomplete") for row in rows)
        raise typer.Exit(output.FAILED if check and wrong else 0)
    planned: list[dict[str, Any]] = []
    with apply.alone():
        for name in tools:
            if (wiring := found.wirings.get(name)) is None:
                _no_half(name, found)
                continue
            changes = _plan(name, wiring, force=force)
            if json:
                planned.append({"tool": name, "changes": [_told(one) for one in changes]})
            if _agreed(name, changes, yes=yes, dry_run=dry_run, quiet=json):
                apply.install(name, changes)
                if not json:
                    print(f"{name} is wired")
                    _hint(name, wiring)
    if json:
        output.as_json(planned)


def uninstall(
    tools: Annotated[list[str], typer.Argument(metavar="TOOL...", help="What was installed.")],
    yes: _Yes = False,
    dry_run: _DryRun = False,
    force: _Force = False,
) -> None:
    """Undo what `opsmesh install TOOL` wrote, and nothing else.

    Example: opsmesh uninstall shell
    """
    with apply.alone():
        for name in tools:
            record = records.load(name)
            if record is None:
                known = ", ".join(records.installed()) or "nothing"
                output.fail(
                    f"{name} is not installed here",
                    hint=f"installed: {known}",
                    code=output.NOT_FOUND,
                )
            changes = plan.to_uninstall(record, force=force)
            nothing = not any(change.needed for change in changes)
            if _agreed(name, changes, yes=yes, dry_run=dry_run) or (nothing and not dry_run):
                apply.uninstall(name, changes)
                print(f"{name} is as it was before opsmesh install")


def _chosen(tools: list[str] | None, found: wirings.Found, *, check: bool) -> list[str]:
    for name in tools or ():
        if name not in found.wirings:
            _unknown(name, list(found.wirings))
    if tools:
        return tools
    return sorted({*records.installed()}) if check else list(found.wirings)


def _row(name: str, wiring: Wiring | None) -> dict[str, Any]:
    record = records.load(name)
    if wiring is None:
        return {"tool": name, "state": "stale", "detail": "its plug-in is gone: opsmesh uninstall"}
    missing = wiring.missing()
    if missing is not None:
        state = "stale" if record else "not here"
        return {"tool": name, "state": state, "detail": missing}
    state = plan.state(name, wiring.pieces(), record)
    detail = wiring.description
    if state == "wired" and (silent := _silent(wiring.producer)):
        detail = f"producer {wiring.producer} does not run: {silent}"
    return {"tool": name, "state": state, "detail": detail}


def _report(rows: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        output.as_json(rows)
        return
    colours = {"wired": "green", "stale": "yellow", "incomplete": "yellow", "edited": "yellow"}
    output.table(
        rows,
        ("tool", "state", "detail"),
        empty="nothing is installed: opsmesh install --list",
        style=lambda name, value: colours.get(value, "") if name == "state" else "",
    )


def _plan(name: str, wiring: Wiring, *, force: bool) -> list[Change]:
    if missing := wiring.missing():
        output.fail(f"{name} cannot be wired here: {missing}")
    changes = plan.to_install(name, wiring.pieces(), records.load(name), force=force)
    if os.geteuid() and any(change.root and change.needed for change in changes):
        program = Path(sys.executable).with_name("opsmesh")
        output.note("".join(change.diff() for change in changes if change.needed))
        output.fail(
            f"{name}: only root may write there",
            hint=f"sudo {shlex.join([str(program), 'install', name])}",
        )
    return changes


def _agreed(
    name: str, changes: list[Change], *, yes: bool, dry_run: bool, quiet: bool = False
) -> bool:
    """Show the changes; whether to make them. Without a terminal only --yes says so."""
    needed = [change for change in changes if change.needed]
    if not needed:
        if not quiet:
            print(f"{name}: nothing to do")
        return False
    if not quiet:
        for change in needed:
            console = output.console()
            if console.is_terminal:
                console.print(Syntax(change.diff(), "diff", background_color="default"))
            else:
                sys.stdout.write(change.diff())
        for change in (one for one in needed if one.save):
            print(f"a copy of {change.path} is kept: {change.path}{apply.SAVED}")
    if dry_run or (quiet and not yes):
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        output.fail("nothing was written: nobody is there to say yes", hint="add --yes")
    return typer.confirm("Write this?", default=False)


def _hint(name: str, wiring: Wiring) -> None:
    if after := wiring.after():
        print(after)
    if silent := _silent(wiring.producer):
        print(f"producer {wiring.producer} does not run: {silent}")


def _silent(producer: str | None) -> str | None:
    """Why nothing is heard of a producer; None when it runs, or none is needed."""
    if producer is None:
        return None
    state = supervisor_state.running()
    if state is None:
        return "no mesh runs: opsmesh up --detach"
    for component in state.components:
        if component.name == f"producer:{producer}":
            return None if component.state == "running" else component.state
    reason = components.producers(Settings()).get(producer, "there is no such producer")
    return reason or "it came after the mesh began: opsmesh down && opsmesh up --detach"


def _no_half(name: str, found: wirings.Found) -> None:
    """A producer whose tool has no half of ours: nothing to write is an answer."""
    known = components.producers(Settings())
    if name not in known:
        _unknown(name, [*found.wirings, *known])
    print(f"{name}: nothing has to be written, its producer listens by itself")
    if silent := _silent(name):
        print(f"it does not run: {silent}")


def _unknown(name: str, known: list[str]) -> None:
    like = nearest(name, known)
    hint = f"did you mean {like}?" if like else f"there are {', '.join(sorted({*known}))}"
    output.fail(f"no tool {name!r} to install", hint=hint, code=output.NOT_FOUND)


def _told(change: Change) -> dict[str, Any]:
    return {"path": str(change.path), "needed": change.needed, "diff": change.diff()}
