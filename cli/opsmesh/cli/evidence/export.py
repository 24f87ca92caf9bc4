"""`opsmesh evidence export`: archived events for other programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated

import typer

from opsmesh.cli import output
from opsmesh.cli.events import Topics, moment
from opsmesh.cli.evidence.query import PATIENCE, REFRESH, reading
from opsmesh.handlers.errors import QueryError
from opsmesh.handlers.evidence import export as exports
from opsmesh.handlers.evidence import segments, tables
from opsmesh.handlers.evidence.export import Counts, Wanted
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.schemas.registry import load_registry

#: Events between looks at the clock.
LOOK = 1000


class Format(StrEnum):
    """What an export is."""

    cloudevents = "cloudevents"
    jsonl = "jsonl"
    parquet = "parquet"


def export(
    form: Annotated[Format, typer.Option("--format", help="What to write.")],
    since: Annotated[
        str | None, typer.Option(help="Only what was stored from this age (7d) or time on.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only what was stored before.")] = None,
    topic: Topics = None,
    host: Annotated[str | None, typer.Option(help="Only events of this host.")] = None,
    correlation: Annotated[
        str | None, typer.Option(help="Only the story with this correlation id.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; standard output unless."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the file if it is there.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --output: say what was written as JSON.")
    ] = False,
) -> None:
    """Write archived events for another program.

    cloudevents: CloudEvents 1.0, one JSON object a line. jsonl: the envelopes as they are stored.
    parquet: the columns of `evidence query`, with the extra: pip install 'opsmesh\\[query]'.

    The file appears when it is whole; until then nothing, or the old one, is there.

    \b
    opsmesh evidence export --format jsonl --since 1d | jq .topic
    opsmesh evidence export --format cloudevents -t 'python.>' -o failures.jsonl
    opsmesh evidence export --format parquet --since 30d -o month.parquet
    """
    if out is None and (form is Format.parquet or as_json):
        what = "a Parquet file" if form is Format.parquet else "--json"
        output.fail(f"{what} needs --output FILE", code=output.USAGE)
    wanted = Wanted(
        since_us=moment(since),
        until_us=moment(until),
        topics=tuple(topic or ()),
        host=host,
        correlation=correlation,
    )
    folder = Settings().evidence_dir
    if not tables.files(folder) and segments.read_head(folder) is None:
        output.fail(
            f"nothing is archived in {folder}",
            hint="the sink runs with the mesh: opsmesh up",
            code=output.NOT_FOUND,
        )
    if out is None:
        counts = _text(form, folder, wanted, sys.stdout.buffer)
    else:
        counts = _file(form, folder, wanted, out, force=force)
    if as_json:
        output.as_json({"file": str(out), "events": counts.events, "left_out": counts.left_out})
        return
    left_out = f"; {counts.left_out} messages are no events" if counts.left_out else ""
    where = f" to {out}" if out is not None else ""
    output.note(f"{counts.events} events exported{where}{left_out}")


def _text(form: Format, folder: Path, wanted: Wanted, file: IO[bytes]) -> Counts:
    counts = Counts()
    if form is Format.cloudevents:
        registry = load_registry(Path(paths.config_dir(), "topics.yaml"))
        lines = exports.as_cloudevents(folder, wanted, counts, registry)
    else:
        lines = exports.as_stored(folder, wanted, counts)
    with _counting(counts) as look:
        for line in lines:
            file.write(line)
            look()
    file.flush()
    return counts


def _file(form: Format, folder: Path, wanted: Wanted, out: Path, *, force: bool) -> Counts:
    """Write beside the file, and put it in its place once it is on disk."""
    if out.exists() and not force:
        _taken(out)
    new = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            if form is Format.parquet:
                counts = _parquet(folder, wanted, new)
            else:
                counts = _text(form, folder, wanted, file)
            os.fsync(file.fileno())
        if force:
            new.replace(out)
        else:
            os.link(new, out)  # unlike a rename, never over a file that came meanwhile
    except FileExistsError:
        _taken(out)
    except OSError as error:
        output.fail(f"{out} cannot be written: {error.strerror or error}")
    finally:
        new.unlink(missing_ok=True)
    return counts


def _parquet(folder: Path, wanted: Wanted, new: Path) -> Counts:
    chosen = tables.files(folder, since_us=wanted.since_us, until_us=wanted.until_us)
    try:
        with reading("exporting", sum(file.size for file in chosen)) as read:
            return exports.to_parquet(folder, wanted, new.absolute(), progress=read)
    except QueryError as error:
        output.fail(str(error), hint=error.hint)


def _taken(out: Path) -> None:
    output.fail(f"{out} is there already", hint="another name, or --force to replace it")


class _Look:
    """Shows a count on the terminal's last line, once it takes long."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._next = time.monotonic() + PATIENCE if sys.stderr.isatty() else float("inf")
        self._calls = 0
        self.shown = False

    def __call__(self) -> None:
        self._calls += 1
        if self._calls % LOOK or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REFRESH
        self.shown = True
        sys.stderr.write(f"\r\x1b[Kexporting: {self._counts.events:,} events")
        sys.stderr.flush()


@contextmanager
def _counting(counts: Counts) -> Iterator[_Look]:
    look = _Look(counts)
    try:
        yield look
    finally:
        if look.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
