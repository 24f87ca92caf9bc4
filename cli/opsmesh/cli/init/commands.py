"""`opsmesh init`: look at this machine, propose, ask once, write, start, and say what to try.

Every part is the one that has its own command (`install`, `up`): this only brings them together.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from opsmesh.cli import config_file, output
from opsmesh.cli import up as mesh
from opsmesh.cli.init import answers, say, settings
from opsmesh.cli.init.look import STOPPED, UNITS, Look, Tool, look
from opsmesh.cli.install import afterwards as install_commands
from opsmesh.cli.install import listening
from opsmesh.handlers.profiles import starter
from opsmesh.producers import wirings
from opsmesh.producers.errors import ProducerError
from opsmesh.producers.install import apply, plan
from opsmesh.producers.install import record as records
from opsmesh.router import paths
from opsmesh.router.units import names as names_of_units

Start = Literal["now", "systemd", "later"]

#: How the question about a project is called where it was answered with no.
PROJECT: Final = "--project"


@dataclass(kw_only=True)
class _Done:
    """What a run of `init` did."""

    profiles: Path | None = None
    config: Path | None = None
    wired: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    started: Start = "later"


def init(
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do all that is proposed, and do not ask.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Show it, and write and start nothing.")
    ] = False,
    start: Annotated[
        Start | None,
        typer.Option(
            help="How the mesh runs: now (until you log out), as units of systemd (at every "
            "login), or later. With --yes and without this: now."
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="TOOL", help="Not this tool; it is not asked again."),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            resolve_path=True,
            help="A Python project to lint and audit when it changes; written into config.yaml.",
        ),
    ] = None,
    ask_again: Annotated[
        bool, typer.Option("--ask-again", help="Ask what was answered with no before.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON document, for programs; does it with --yes.")
    ] = False,
) -> None:
    """First run: see which tools are here, wire them, write profiles.yaml, start the mesh.

    Shows what it found and would write, then asks: which tools to wire, and how the mesh shall run.
    Safe to call again: what is there stays, and what you did not want is not asked again.
    Each tool is undone by itself: opsmesh uninstall TOOL.

    Examples: opsmesh init --dry-run
              opsmesh init --yes --without neovim
              opsmesh init --yes --start systemd
              opsmesh init --project ~/work/app
    """
    config_file.read()
    if ask_again and not dry_run:
        answers.forget()
    refused = {*(without or ())} | (set() if ask_again else answers.declined())
    found = look()
    names = [tool.name for tool in found.offered]
    if unknown := {*(without or ())} - {*names, *found.wired, *answers.declined()}:
        output.note(f"--without {', '.join(sorted(unknown))}: not offered here anyway")
    offered = [tool for tool in found.offered if tool.name not in refused]
    if start == "systemd" and not found.runs and found.no_units is not None:
        begin = names_of_units.for_people("user", "start", names_of_units.TARGET)
        hint = begin if found.no_units == STOPPED else "opsmesh init --start now"
        output.fail(f"units of systemd: {found.no_units}", hint=hint)
    if not json:
        say.show(found, offered, refused=[name for name in names if name in refused])
    if dry_run or (json and not yes):
        if json:
            output.as_json(_facts(found, offered, _Done()))
        return
    watch = settings.unset(found.absent)
    if project is not None and not watch:
        output.note("--project: ruff and pip-audit have their folders already: opsmesh config show")
    if not yes and _something(found, offered) and not sys.stdin.isatty():
        output.fail("nothing was written: nobody is there to answer", hint="opsmesh init --yes")
    chosen = offered if yes else _choose(offered)
    declined = [tool.name for tool in offered if tool not in chosen]
    if project is None and watch and not yes and PROJECT not in refused:
        here = _here()
        if here is not None:
            ask = f"\nLint {here} on each save, and audit what it needs?"
            project = here if typer.confirm(ask, default=True) else None
            declined += [] if project else [PROJECT]
    how = _how(found, start, yes=yes)
    answers.decline([*declined, *(name for name in names if name in (without or ()))])
    with _apart(json):
        done = _do(found, chosen, how, settings.lines(project, watch) if project and watch else "")
    if json:
        output.as_json(_facts(found, offered, done))
    else:
        runs = found.runs or done.started != "later"
        say.what_next(runs=runs, wired={*found.wired, *done.wired})
    if done.failed:
        raise typer.Exit(output.FAILED)


def _something(found: Look, offered: Sequence[Tool]) -> bool:
    return bool(offered) or found.profiles is not None or not found.runs


def _choose(offered: Sequence[Tool]) -> list[Tool]:
    """Ask which tools to wire; Enter takes all."""
    names = {tool.name: tool for tool in offered}
    while names:
        said = typer.prompt("\nWire which? all, none, names, or show", default="all")
        words = said.replace(",", " ").split()
        if words == ["all"]:
            return list(offered)
        if words == ["none"]:
            return []
        if words == ["show"]:
            for tool in offered:
                sys.stdout.write("".join(change.diff() for change in tool.changes))
        elif wrong := [word for word in words if word not in names]:
            output.note(f"there is no {', '.join(wrong)}; there are {', '.join(names)}")
        else:
            return [names[word] for word in dict.fromkeys(words)]
    return []


def _how(found: Look, start: Start | None, *, yes: bool) -> Start:
    if found.runs:
        return "later"
    if start is not None or yes:
        return start or "now"
    if found.no_units is None:
        print("\nThe mesh can run as units of your systemd, which begin at every login (systemd),")
        print("or until you log out or say opsmesh down (now).")
        while True:
            said = str(typer.prompt("Start it how? systemd, now, later", default="systemd"))
            if said in ("systemd", "now", "later"):
                return said  # type: ignore[return-value]  # one of the three
    return "now" if typer.confirm("\nStart the mesh now?", default=True) else "later"


def _here() -> Path | None:
    """The project that somebody stands in, unless it is the checkout of opsmesh itself."""
    here = settings.proposal()
    return None if here is None or Path(sys.prefix).is_relative_to(here) else here


@contextlib.contextmanager
def _apart(json: bool) -> Iterator[None]:
    """What the parts say to people is no part of a JSON document."""
    if not json:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _do(found: Look, chosen: Sequence[Tool], how: Start, wanted: str) -> _Done:
    done = _Done()
    if wanted:
        done.config = settings.write(wanted)
        if done.config is not None:
            print(f"wrote {done.config}")
        else:
            output.note(f"add to {settings.config_file()}, which is yours:\n{wanted}")
    done.profiles = starter.write(Path(paths.config_dir()), about=say.about(found, chosen))
    if done.profiles is not None:
        print(f"wrote {done.profiles}")
    with apply.alone(lambda: output.note("another opsmesh install is at work: waiting")):
        for tool in chosen:
            try:
                apply.install(tool.name, tool.changes)
                install_commands.run(wirings.on(tool.name, tool.wiring), needed=True)
            except (ProducerError, OSError) as error:  # one tool must not keep the others away
                done.failed[tool.name] = str(error)
                output.note(f"{tool.name} was not wired: {error}")
                continue
            except typer.Exit:  # said already: what it wants run beside its files failed
                done.failed[tool.name] = "a command failed"
                continue
            done.wired.append(tool.name)
            after = wirings.after(tool.name, tool.wiring)
            print(f"{tool.name} is wired" + (f": {after}" if after else ""))
        if how == "systemd":
            wiring = wirings.discover().wirings[UNITS]
            pieces, record = wirings.pieces(UNITS, wiring), records.load(UNITS)
            apply.install(UNITS, plan.to_install(UNITS, pieces, record, force=False))
            install_commands.run(wirings.on(UNITS, wiring), needed=True)
            print(wirings.after(UNITS, wiring))
    if how == "now":
        mesh.up(detach=True, wait=mesh.WAIT)
    elif found.runs:
        late = {tool.wiring.producer for tool in chosen}
        for producer in late | ({*settings.unset(found.absent)} if done.config else set()):
            if silent := listening.begin(producer):
                output.note(f"producer {producer} does not run: {silent}")
    done.started = how
    return done


def _facts(found: Look, offered: Sequence[Tool], done: _Done) -> dict[str, Any]:
    return {
        "host": found.host,
        "heard": [{"name": one.name, "topics": list(one.topics)} for one in found.heard],
        "absent": found.absent,
        "offered": [
            {"name": tool.name, "files": [str(path) for path in tool.files]} for tool in offered
        ],
        "system": [tool.name for tool in found.system],
        "wired": sorted({*found.wired, *done.wired}),
        "troubles": {**found.troubles, **done.failed},
        "profiles": {
            "path": str(Path(paths.config_dir(), starter.FILE)),
            "there": found.profiles is None,
            "written": done.profiles is not None,
        },
        "config": None if done.config is None else str(done.config),
        "runs": found.runs or done.started != "later",
        "started": done.started if not found.runs else None,
        "try": say.TRY,
    }
