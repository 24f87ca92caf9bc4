"""`opsmesh evidence`: the hash-chained archive, checked and read without a broker."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from opsmesh.cli import output
from opsmesh.cli.events import moment
from opsmesh.cli.evidence_export import export
from opsmesh.cli.evidence_query import query
from opsmesh.handlers.evidence import reader, segments
from opsmesh.handlers.evidence.reader import Archived
from opsmesh.handlers.evidence.report import Report
from opsmesh.handlers.evidence.verify import verify
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError

app = typer.Typer(
    no_args_is_help=True,
    help="The hash-chained archive of every stored event; needs no broker.",
)

app.command("query")(query)
app.command("export")(export)

#: Problems that are shown to people; JSON has them all.
SHOWN = 50

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", "-t", help="Only these topics; * is one token, > the rest."),
]


@app.command("verify")
def verify_(
    since: Annotated[
        str | None, typer.Option(help="Only the days from this age (7d) or time on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that the archive is what was written.

    Exit code 0: intact; 1: changed or incomplete, each problem with its file and line; 3: nothing
    is archived.

    Example: opsmesh evidence verify --since 7d
    """
    folder = _folder()
    since_us = moment(since)
    day = None if since_us is None else datetime.fromtimestamp(since_us / 1e6, UTC).date()
    with _progress() as (bar, task):
        report = verify(
            folder,
            since=day,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not report.segments and report.intact:
        _nothing("nothing is archived since then")
    if as_json:
        output.as_json(_as_dict(folder, report))
    else:
        _show(folder, report)
    raise typer.Exit(0 if report.intact else output.FAILED)


@app.command("path")
def path() -> None:
    """Print the archive's folder."""
    sys.stdout.write(f"{Settings().evidence_dir}\n")


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the archive's files."""
    rows = [
        {
            "file": segment.name,
            "day": segment.day,
            "lines": _count(segment.path),
            "bytes": segment.path.stat().st_size,
            "first_seq": segment.first_seq,
        }
        for segment in segments.listing(_folder())
    ]
    if as_json:
        output.as_json(rows)
    else:
        output.table(rows, ["file", "lines", "bytes", "first_seq"], empty="no files")


@app.command("tail")
def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many events.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new ones.")] = False,
    topic: Topics = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show the newest archived events.

    Example: opsmesh evidence tail -n 5 -t 'python.>'
    """
    folder = _folder()
    console = Console(soft_wrap=True)
    last: Archived | None = None
    for item in _newest(folder, lines, topic, follow=follow):
        if as_json:
            sys.stdout.write(_json_line(item) + "\n")
            sys.stdout.flush()
        else:
            console.print(_text(item), highlight=False, markup=False)
        last = item
    if last is None and not follow and lines:
        output.note("no event is archived that matches")


@app.command("find")
def find(
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.")],
    as_json: AsJson = False,
) -> None:
    """Find an archived event by its id: where it lies, and its bytes.

    Example: opsmesh evidence find 019ab3c4-…
    """
    folder = _folder()
    for segment in reversed(segments.listing(folder)):
        with segment.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                item = _is_it(raw, event_id)
                if item is None:
                    continue
                if as_json:
                    where = {"file": str(segment.path), "line": number}
                    output.as_json({**where, **msgspec.json.decode(_json_line(item))})
                else:
                    output.note(f"{segment.path}:{number}")
                    sys.stdout.write(item.data.decode(errors="replace") + "\n")
                return
    output.fail(
        f"event {event_id} is not in the archive",
        hint="it may be younger than the archive: opsmesh show " + event_id,
        code=output.NOT_FOUND,
    )


def _folder() -> Path:
    folder = Settings().evidence_dir
    if not segments.listing(folder) and segments.read_head(folder) is None:
        _nothing(f"nothing is archived in {folder}")
    return folder


def _nothing(message: str) -> None:
    output.fail(message, hint="the sink runs with the mesh: opsmesh up", code=output.NOT_FOUND)


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Progress, Any]]:
    """A bar on standard error, on a terminal alone."""
    console = Console(stderr=True)
    columns = (TextColumn("verifying"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield bar, bar.add_task("verify", total=None)


def _as_dict(folder: Path, report: Report) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(report)
    return {"intact": report.intact, "folder": str(folder), **facts}


def _show(folder: Path, report: Report) -> None:
    for problem in report.problems[:SHOWN]:
        sys.stdout.write(
            f"{folder / problem.file}:{problem.line}: {problem.kind}: {problem.message}\n"
        )
        if problem.expected or problem.found:
            sys.stdout.write(f"    expected {problem.expected}\n    found    {problem.found}\n")
    if len(report.problems) > SHOWN:
        sys.stdout.write(f"and {len(report.problems) - SHOWN} more problems; --json has them all\n")
    for note in report.notes:
        facts = " ".join(f"{key}={value}" for key, value in note.facts.items())
        sys.stdout.write(f"{folder / note.file}:{note.line}: note: {facts}\n")
    if report.torn is not None:
        torn = report.torn
        sys.stdout.write(
            f"{folder / torn.file}:{torn.line}: the last line is not whole ({torn.bytes} bytes): "
            "a write was interrupted or goes on now; the sink writes it again\n"
        )
    verdict = "intact" if report.intact else f"NOT intact, {len(report.problems)} problems"
    sys.stdout.write(
        f"{verdict}: {report.lines} lines in {report.segments} files, "
        f"sequences {report.first_seq} to {report.last_seq}\n"
    )
    if report.last_hash:
        sys.stdout.write(f"last hash {report.last_hash}\n")


def _newest(
    folder: Path, count: int, topics: list[str] | None, *, follow: bool
) -> Iterator[Archived]:
    if not follow:
        yield from reader.newest(folder, count, topics=topics)
        return
    with contextlib.suppress(KeyboardInterrupt):
        yield from reader.follow(folder, count, topics=topics)


def _is_it(raw: bytes, event_id: str) -> Archived | None:
    """The message in the line if its event has this id.

    An event stored without one has the id that every reader derives, which holds the millisecond
    of its store time.
    """
    ms = ids.unix_ms(event_id)
    stored = times.format_us(ms * 1000)[:23].encode() if ms is not None else event_id.encode()
    if event_id.encode() not in raw and stored not in raw:
        return None
    item = reader.entry(raw)
    event = _event(item) if item is not None else None
    return item if event is not None and event.id == event_id else None


def _event(item: Archived) -> Event | None:
    try:
        return decode(item.data, stored=(item.stream, item.seq, item.time_us))
    except SchemaError:
        return None


def _text(item: Archived) -> str:
    when = output.local(times.format_us(item.time_us))
    event = _event(item)
    if event is None:
        return f"{when}  {item.seq}  {len(item.data)} bytes that are no event"
    return f"{when}  {item.seq}  {event.severity:<8} {event.topic}  {event.host}  {event.id}"


def _json_line(item: Archived) -> str:
    facts: dict[str, Any] = {
        "stream": item.stream,
        "seq": item.seq,
        "stored": times.format_us(item.time_us),
    }
    event = _event(item)
    if event is not None:
        facts |= {"id": event.id, "event": msgspec.Raw(item.data.strip())}
    else:
        facts["base64"] = base64.b64encode(item.data).decode()
    return msgspec.json.encode(facts).decode()
