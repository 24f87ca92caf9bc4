"""`opsmesh install` and `uninstall`: a tool's own half, shown first, and undone exactly."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.syntax import Syntax

from opsmesh.cli import output
from opsmesh.cli.install import afterwards as install_commands
from opsmesh.cli.install import listening
from opsmesh.cli.install import rows as install_rows
from opsmesh.producers import host, registry, wirings
from opsmesh.producers.errors import NotOurs, ProducerError
from opsmesh.producers.install import apply, plan
from opsmesh.producers.install import record as records
from opsmesh.producers.install.plan import Change
from opsmesh.producers.wiring import OwnFile, Wiring
from opsmesh.schemas.nearest import nearest

_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show it, and write nothing.")]
_Force = Annotated[
    bool,
    typer.Option("--force", help="Replace or remove a file that is not ours, keeping a copy."),
]
_Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON document, for programs; writes only with --yes."),
]


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """One tool, and what is to be done for it; no wiring: nothing has to be written."""

    tool: str
    wiring: Wiring | None
    changes: list[Change]
    #: What its wiring was made with.
    options: dict[str, str] = field(default_factory=dict)
    #: What is run before the files change, and after.
    before: install_commands.Commands = ()
    then: install_commands.Commands = ()

    @cached_property
    def needed(self) -> list[Change]:
        return [change for change in self.changes if change.needed]

    @property
    def producer(self) -> str | None:
        return self.tool if self.wiring is None else self.wiring.producer

    @property
    def for_root(self) -> bool:
        return bool(os.geteuid()) and any(change.root for change in self.needed)


def install(
    tools: Annotated[
        list[str] | None, typer.Argument(metavar="TOOL", help="As in `install --list`.")
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
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="KEY=VALUE", help="An option of this one tool; it is kept."
        ),
    ] = None,
    json: _Json = False,
) -> None:
    """Wire a tool: write its own half, after showing it and asking.

    Only files of our own in folders that the tool reads, and one marked line, or a part of a
    structured file, where it has no such folder. `opsmesh uninstall TOOL` undoes exactly that.
    Then the tool's producer is started, if the mesh runs without it.

    Example: opsmesh install shell
    """
    if option and (check or list_ or len(tools or ()) != 1):
        output.fail("-o is for one tool: opsmesh install TOOL -o KEY=VALUE", code=output.USAGE)
    found = wirings.discover({tools[0]: host.options(option)} if option and tools else None)
    if not json:
        for name, reason in found.problems.items():
            output.note(f"skipped {name}: broken: {reason}")
    if check or list_ or not tools:
        for name in tools or ():
            known = [*found.wirings, *found.problems, *records.installed()]
            _known(name, [*known, *registry.discover().producers])
        rows = install_rows.chosen(tools, found) if check or tools else install_rows.every(found)
        install_rows.show(rows, json=json)
        wrong = any(row["state"] in install_rows.WRONG for row in rows)
        raise typer.Exit(output.FAILED if check and wrong else 0)
    told: list[dict[str, Any]] = []
    with apply.alone(_waiting):
        given = host.options(option) if option else None
        everything = [
            _plan(name, found, given, force=force, json=json) for name in dict.fromkeys(tools)
        ]
        for one in everything:
            written = _agreed(one, yes=yes, dry_run=dry_run, quiet=json)
            if written:
                apply.install(one.tool, one.changes, options=one.options)
                install_commands.run(one.then, needed=True)
            if json:
                told.append(_told(one, written=written) | _listens(one, begin=yes and not dry_run))
            else:
                _rest(one, written=written, dry_run=dry_run)
    if json:
        output.as_json(told)
    if not dry_run and (later := [one.tool for one in everything if one.for_root]):
        flags = ["--force"] if force else []
        hint = _as_root("install", *later, *flags)
        output.fail(f"{', '.join(later)}: only root may write there", hint=hint)


def uninstall(
    tools: Annotated[list[str], typer.Argument(metavar="TOOL", help="What was installed.")],
    yes: _Yes = False,
    dry_run: _DryRun = False,
    force: _Force = False,
    json: _Json = False,
) -> None:
    """Undo what `opsmesh install TOOL` wrote, and nothing else.

    Example: opsmesh uninstall shell
    """
    told = []
    with apply.alone(_waiting):
        everything = [_undo(name, force=force, json=json) for name in dict.fromkeys(tools)]
        for one in everything:
            agreed = _agreed(one, yes=yes, dry_run=dry_run, quiet=json)
            written = agreed or (not one.needed and not dry_run and (yes or not json))
            if written:
                install_commands.run(one.before, needed=False)
                apply.uninstall(one.tool, one.changes)
                install_commands.run(one.then, needed=False)
            if json:
                told.append(_told(one, written=written))
            elif written:
                print(f"{one.tool} is as it was before opsmesh install")
    if json:
        output.as_json(told)


def _plan(
    name: str,
    found: wirings.Found,
    given: dict[str, str] | None,
    *,
    force: bool,
    json: bool,
) -> _Planned:
    if (wiring := found.wirings.get(name)) is None:
        if name in found.problems:
            output.fail(f"{name} is broken: {found.problems[name]}")
        producers = registry.discover()
        _known(name, [*found.wirings, *producers.producers, *producers.problems])
        if given:
            hint = f"its producer may have some: opsmesh producer run {name} --help"
            output.fail(f"{name} needs no wiring, and has no options", hint=hint, code=output.USAGE)
        return _Planned(tool=name, wiring=None, changes=[])
    if missing := wirings.missing(name, wiring):
        output.fail(f"{name} cannot be wired here: {missing}")
    pieces, record = wirings.pieces(name, wiring), records.load(name)
    try:
        changes = plan.to_install(name, pieces, record, force=force)
    except NotOurs as error:
        _show(error.diff, json=json)
        raise
    needed = any(change.needed for change in changes)
    then = wirings.on(name, wiring) if needed or record is None else []
    known = record.options if record is not None else {}
    options = known if given is None else given
    return _Planned(tool=name, wiring=wiring, changes=changes, then=then, options=options)


def _undo(name: str, *, force: bool, json: bool) -> _Planned:
    record = records.load(name) if name in records.installed() else None
    if record is None:
        hint = f"installed: {', '.join(records.installed()) or 'nothing'}"
        if _is_roots(name):
            hint = _as_root("uninstall", name)
        output.fail(f"{name} is not installed here", hint=hint, code=output.NOT_FOUND)
    wiring = wirings.discover().wirings.get(name)
    try:
        pieces = [] if wiring is None else wirings.pieces(name, wiring)
    except ProducerError:  # what it would write is not needed to take away what it wrote
        pieces = []
    try:
        changes = plan.to_uninstall(record, pieces, force=force)
    except NotOurs as error:
        _show(error.diff, json=json)
        raise
    before, then = wirings.off(name, wiring) if wiring is not None else ([], [])
    return _Planned(tool=name, wiring=None, changes=changes, before=before, then=then)


def _agreed(one: _Planned, *, yes: bool, dry_run: bool, quiet: bool) -> bool:
    """Show the changes; whether to make them. Without a terminal only --yes says so."""
    if not one.needed:
        # Everything is there; without a record nobody could take it away again. What is root's is
        # on root's record.
        theirs = bool(os.geteuid()) and any(change.root for change in one.changes)
        asked = bool(one.changes) and not dry_run and (yes or not quiet)
        record = records.load(one.tool)
        return asked and not theirs and (record is None or record.options != one.options)
    for change in one.needed:
        _show(change.diff(), json=quiet)
        if change.keep is not None and not quiet:
            print(f"a copy of {change.path} is kept: {change.keep}")
    if not quiet and not one.for_root:
        install_commands.show([*one.before, *one.then])
    if dry_run or one.for_root or (quiet and not yes):
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        output.fail(
            f"{one.tool}: nothing was written: nobody is there to say yes", hint="add --yes"
        )
    if not typer.confirm("Write this?", default=False):
        output.fail(f"{one.tool}: nothing was written")
    return True


def _show(diff: str, *, json: bool) -> None:
    if json or not diff:
        return
    console = output.console()
    if console.is_terminal:
        console.print(Syntax(diff, "diff", background_color="default"))
    else:
        sys.stdout.write(diff)


def _rest(one: _Planned, *, written: bool, dry_run: bool) -> None:
    """What there is to say once nothing is left to write."""
    if one.wiring is None:
        print(f"{one.tool}: nothing has to be written, its producer listens by itself")
    elif written or not one.needed:
        print(f"{one.tool} is wired" if written else f"{one.tool}: nothing to do")
    if dry_run or one.for_root:
        return
    after = wirings.after(one.tool, one.wiring) if one.wiring is not None else ""
    if after and (written or not one.changes):
        print(after)
    if one.producer is None:
        return
    if silent := listening.begin(one.producer):
        print(f"producer {one.producer} does not run: {silent}")
    elif one.wiring is None or written:
        print(f"producer {one.producer} runs")


def _waiting() -> None:
    output.note("another opsmesh install is at work: waiting for its end")


def _known(name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    like = nearest(name, list(known))
    hint = f"did you mean {like}?" if like else f"there are {', '.join(sorted({*known}))}"
    output.fail(f"no tool {name!r} to install", hint=hint, code=output.NOT_FOUND)


def _is_roots(name: str) -> bool:
    """Whether it is wired, though not by this user."""
    found = wirings.discover()
    if not os.geteuid() or name not in found.wirings:
        return False
    pieces = wirings.pieces(name, found.wirings[name])
    return any(isinstance(one, OwnFile) and one.root for one in pieces) and (
        install_rows.of(name, found)["state"] == "wired"
    )


def _as_root(*words: str) -> str:
    """The command for root, who has another PATH and, with -H, a state folder of its own."""
    program = Path(sys.executable).with_name("opsmesh")
    return f"sudo -H {shlex.join([str(program), *words])}"


def _told(one: _Planned, *, written: bool) -> dict[str, Any]:
    """The plan, and whether it was done, for programs."""
    needed = [change.path for change in one.needed]
    return {
        "tool": one.tool,
        "written": written and bool(needed),
        "commands": install_commands.texts([*one.before, *one.then]),
        "changes": [
            {
                "path": str(change.path),
                "needed": change.path in needed,
                "mode": None if change.mode is None else f"{change.mode:o}",
                "root": change.root,
                "copy": None if change.keep is None else str(change.keep),
                "diff": change.diff(),
            }
            for change in one.changes
        ],
    }


def _listens(one: _Planned, *, begin: bool) -> dict[str, Any]:
    """What is left to do, and why its producer does not run (None: it does, or none is needed)."""
    ask = listening.begin if begin else listening.silent
    after = wirings.after(one.tool, one.wiring) if one.wiring is not None else ""
    return {"after": after, "producer": one.producer, "silent": ask(one.producer)}
