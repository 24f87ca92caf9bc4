"""`opsmesh spool`: events that wait for the broker, and what is damaged; needs no broker."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from opsmesh.cli import output, sizes
from opsmesh.router import paths, spool, spool_overflow, spool_state
from opsmesh.router.spool_state import Entry
from opsmesh.schemas import times

app = typer.Typer(
    no_args_is_help=True,
    help="Events that wait on disk for the broker, and records that were damaged there.",
)

#: Why a person's `drop` is in the count of what was lost.
BY_HAND = "by hand"

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE", help="Names that `spool ls` shows, or their beginnings."),
]


@app.command("ls")
def ls(
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Only what was set aside as damaged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the files of the spool in the order in which they are sent, then what is damaged.

    Example: opsmesh spool ls --damaged
    """
    folder = paths.spool_dir()
    found = [] if damaged else _waiting(folder)
    found += [spool_state.damaged_entry(folder, name) for name in spool_state.damaged_names(folder)]
    if as_json:
        output.as_json([asdict(entry) for entry in found])
        return
    output.table(
        [_row(entry) for entry in found],
        ["file", "written", "state", "events", "damaged", "bytes", "sources"],
        empty="nothing is damaged" if damaged else "the spool is empty",
    )


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="FILE", help="A name that `spool ls` shows.")],
) -> None:
    """Print what is in one file: events as JSON, one a line; damaged records as they stand.

    Example: opsmesh spool show 01764225
    """
    folder = paths.spool_dir()
    (state, found), *_ = _chosen(folder, [name])
    if state == "waiting":
        try:
            good, records = spool.read(f"{folder}/{found}")
        except OSError as error:
            output.fail(f"{found} cannot be read: {error.strerror}")
        records = [*good, *records]
    else:
        records = spool_state.damaged_records(folder, found) or []
        if not records:
            output.fail(f"{found} is no file that can be read", hint=f"ls -l {folder}/corrupt")
    for record in records:
        sys.stdout.buffer.write(record + b"\n")


@app.command("drop")
def drop(
    names: Names = None,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Everything that was set aside as damaged.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="Everything that waits, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Give events up: they are counted as lost, and reported when the broker is back.

    Example: opsmesh spool drop --damaged
    """
    folder = paths.spool_dir()
    chosen = _chosen(folder, names or [], damaged=damaged or every, waiting=every)
    if not chosen:
        output.fail("nothing is chosen", hint="opsmesh spool ls", code=output.NOT_FOUND)
    if not yes:
        typer.confirm(f"Give up {len(chosen)} files, for good?", abort=True)
    for state, name in chosen:
        if state == "waiting":
            spool_overflow.give_up(folder, [name], BY_HAND)
        else:
            spool_overflow.give_up_damaged(folder, name, BY_HAND)
    print(f"dropped, and counted: {len(chosen)} files")


@app.command("retry")
def retry(
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="Everything that is damaged.")] = False,
) -> None:
    """Send damaged records again where they still are events: their checksum is wrong, so look
    first. What is no event any more stays. Exit code 1 when anything does.

    Example: opsmesh spool show 01764225 && opsmesh spool retry 01764225
    """
    folder = paths.spool_dir()
    chosen = [
        name for state, name in _chosen(folder, names or [], damaged=every) if state == "damaged"
    ]
    if not chosen:
        output.fail(
            "nothing is chosen that is damaged",
            hint="opsmesh spool ls --damaged",
            code=output.NOT_FOUND,
        )
    again = left = 0
    for name in chosen:
        records = spool_state.damaged_records(folder, name)
        if records is None:
            left += 1
            continue
        events = {record: spool_state.event_in(record) for record in records}
        lines = [line for line in events.values() if line is not None]
        rest = [record for record, line in events.items() if line is None]
        notes = [record for record in rest if record.startswith(spool.NOTE)]
        if lines and not spool.write(folder, lines):
            output.fail("the spool is full, and new events are dropped (spool.when_full)")
        again += len(lines)
        left += len(rest) - len(notes)
        if len(rest) > len(notes):
            spool.set_aside(folder, name, rest)
        else:
            spool.remove(f"{folder}/{spool.CORRUPT}/{name}")
    print(f"back in the spool: {again} events; no events any more: {left}")
    raise typer.Exit(output.FAILED if left else 0)


def _waiting(folder: str) -> list[Entry]:
    found = []
    for name in spool.names(folder):
        try:
            found.append(spool_state.waiting_entry(folder, name))
        except FileNotFoundError:  # sent since
            continue
    return found


def _chosen(
    folder: str, wanted: list[str], *, damaged: bool = False, waiting: bool = False
) -> list[tuple[str, str]]:
    """State and name of what is meant; a beginning that fits nothing, or several, is an error."""
    there = [("waiting", name) for name in spool.names(folder)]
    there += [("damaged", name) for name in spool_state.damaged_names(folder)]
    found = [one for one in there if (damaged if one[0] == "damaged" else waiting)]
    for start in wanted:
        fits = [one for one in there if one[1].startswith(start)]
        if not fits:
            output.fail(
                f"no file of the spool begins with {start}",
                hint="opsmesh spool ls",
                code=output.NOT_FOUND,
            )
        exact = [one for one in fits if one[1] == start]
        if len(fits) > 1 and len(exact) != 1:
            output.fail(
                f"{len(fits)} files begin with {start}: {', '.join(name for _, name in fits[:5])}",
                code=output.USAGE,
            )
        found += [one for one in exact or fits if one not in found]
    return found


def _row(entry: Entry) -> dict[str, Any]:
    written = entry.written_s
    return {
        "file": entry.name,
        "written": "" if written is None else times.clock(int(written * 1e6)),
        "state": entry.state,
        "events": entry.events or "",
        "damaged": entry.damaged or "",
        "bytes": sizes.text(entry.bytes),
        "sources": ", ".join(f"{name} {n}" for name, n in sorted(entry.sources.items())),
    }
