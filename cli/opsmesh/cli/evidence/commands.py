"""`opsmesh evidence`: the hash-chained archive, checked and read. It needs no broker, unless it is
to be compared with the stream."""

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
from nats.aio.client import Client
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from opsmesh.cli import output
from opsmesh.cli.events import Topics, moment
from opsmesh.cli.evidence import bundles as evidence_bundles
from opsmesh.cli.evidence import proofs as evidence_proofs
from opsmesh.cli.evidence import seals as evidence_seals
from opsmesh.cli.evidence.export import export
from opsmesh.cli.evidence.query import query
from opsmesh.cli.session import with_client
from opsmesh.handlers.errors import SegmentDamaged
from opsmesh.handlers.evidence import against, keys, reader, seals, segments
from opsmesh.handlers.evidence.locate import event_of, locate
from opsmesh.handlers.evidence.reader import Archived
from opsmesh.handlers.evidence.report import Report
from opsmesh.handlers.evidence.segments import Segment
from opsmesh.handlers.evidence.verify import verify
from opsmesh.router import paths, redaction
from opsmesh.router.settings import Settings
from opsmesh.schemas import times

app = typer.Typer(
    no_args_is_help=True,
    help="The hash-chained archive of every stored event, and evidence bundles.",
)

app.command("query")(query)
app.command("export")(export)
app.command("seal")(evidence_seals.seal)
app.add_typer(evidence_seals.key_app, name="key")
app.add_typer(evidence_bundles.app, name="bundle")
app.command("prove")(evidence_proofs.prove_)
app.command("check-proof")(evidence_proofs.check_proof)

#: Problems that are shown to people; JSON has them all.
SHOWN = 50

AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command("verify")
def verify_(
    since: Annotated[
        str | None, typer.Option(help="Only the days from this age (7d) or time on.")
    ] = None,
    against_stream: Annotated[
        bool,
        typer.Option("--against-stream", help="Compare with the stream as well; needs the broker."),
    ] = False,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Accept seals under this public key, not this machine's."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that the archive is what was written, and sealed.

    With --against-stream every message that the stream still holds is compared, byte for byte, and
    every seal that was announced in it: an archive that was written anew is found by that.

    Exit code 0: intact; 1: changed or incomplete, each problem with its file and line; 3: nothing
    is archived.

    Example: opsmesh evidence verify --since 7d --against-stream
    """
    folder = Settings().evidence_dir
    pin = keys.pinned(folder, Path(paths.keys_dir()))
    if pin is None and not segments.sealed(folder):
        _folder()
    since_us = moment(since)
    day = None if since_us is None else datetime.fromtimestamp(since_us / 1e6, UTC).date()
    trusted = evidence_proofs.trusted_key(key)
    with _progress("verifying") as (bar, task):
        report = verify(
            folder,
            since=day,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            key=trusted,
            pin=pin,
        )
    if not report.segments and report.intact:
        _nothing("nothing is archived since then")
    if against_stream:
        _compare(folder, report, trusted)
    if as_json:
        output.as_json(_as_dict(folder, report))
    else:
        _show(folder, report)
    raise typer.Exit(0 if report.intact else output.FAILED)


def _compare(folder: Path, report: Report, trusted: str | None) -> None:
    async def body(client: Client, settings: Settings) -> None:
        with _progress("comparing") as (bar, task):
            await against.compare(
                client,
                folder,
                report,
                key=trusted,
                host=settings.host,
                redactor=redaction.load(settings) if redaction.key_file().exists() else None,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )

    with_client(body)


@app.command("path")
def path() -> None:
    """Print the archive's folder."""
    sys.stdout.write(f"{Settings().evidence_dir}\n")


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the archive's files: sealed and compressed, or still open."""
    folder = _folder()
    closed = {segment.name for segment in segments.closed(folder)}
    rows = [_row(segment, closed=segment.name in closed) for segment in segments.listing(folder)]
    if as_json:
        output.as_json(rows)
    else:
        columns = ["file", "state", "lines", "bytes", "on_disk", "first_seq"]
        output.table(rows, columns, empty="no files")


def _row(segment: Segment, *, closed: bool) -> dict[str, Any]:
    seal, size, lines = None, None, None
    # what is wrong with a file is for `verify` to say
    with contextlib.suppress(ValueError):
        seal = seals.read(segment)
    with contextlib.suppress(SegmentDamaged):
        size = segments.size(segment)
        lines = _count(segment) if seal is None else seal.manifest.lines
    state = "sealed" if seal is not None else "closed" if closed else "open"
    return {
        "file": segment.file.relative_to(segment.folder).as_posix(),
        "day": segment.day,
        "state": state,
        "lines": lines,
        "bytes": size,
        "on_disk": segments.stored_size(segment),
        "first_seq": segment.first_seq,
        "sealed_at": seal.manifest.sealed_at if seal is not None else None,
    }


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
    place = locate(_folder(), event_id)
    if place is not None:
        item, file = place.item, place.segment.file
        if as_json:
            where = {"file": str(file), "line": place.line}
            output.as_json({**where, **msgspec.json.decode(_json_line(item))})
        else:
            output.note(f"{file}:{place.line}")
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


def _count(segment: Segment) -> int:
    with segments.opened(segment) as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))


@contextlib.contextmanager
def _progress(what: str) -> Iterator[tuple[Progress, Any]]:
    """A bar on standard error, on a terminal alone."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield bar, bar.add_task(what, total=None)


def _as_dict(folder: Path, report: Report) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(report)
    return {"intact": report.intact, "folder": str(folder), **facts}


def _show(folder: Path, report: Report) -> None:
    for problem in report.problems[:SHOWN]:
        # what is no file is a place in the stream
        place = folder / problem.file if Path(problem.file).suffix else problem.file
        sys.stdout.write(f"{place}:{problem.line}: {problem.kind}: {problem.message}\n")
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
    if report.compared is not None:
        waiting = f", {report.pending} more are not archived yet" if report.pending else ""
        sys.stdout.write(f"{report.compared} messages compared with the stream{waiting}\n")
    verdict = "intact" if report.intact else f"NOT intact, {len(report.problems)} problems"
    sys.stdout.write(
        f"{verdict}: {report.lines} lines in {report.segments} files, "
        f"sequences {report.first_seq} to {report.last_seq}\n"
    )
    if report.sealed:
        sys.stdout.write(f"{report.sealed} files sealed, the newest under key {report.key}\n")
    if report.sealed and not report.pinned:
        sys.stdout.write(
            "the key is the archive's own word: compare it with the one that you were given, or "
            "give that: --key FILE\n"
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


def _text(item: Archived) -> str:
    when = output.local(times.format_us(item.time_us))
    event = event_of(item)
    if event is None:
        return f"{when}  {item.seq}  {len(item.data)} bytes that are no event"
    return f"{when}  {item.seq}  {event.severity:<8} {event.topic}  {event.host}  {event.id}"


def _json_line(item: Archived) -> str:
    facts: dict[str, Any] = {
        "stream": item.stream,
        "seq": item.seq,
        "stored": times.format_us(item.time_us),
    }
    event = event_of(item)
    if event is not None:
        facts |= {"id": event.id, "event": msgspec.Raw(item.data.strip())}
    else:
        facts["base64"] = base64.b64encode(item.data).decode()
    return msgspec.json.encode(facts).decode()
