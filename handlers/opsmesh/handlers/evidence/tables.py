"""The archive as tables: `events`, `notes` and `lines`, which DuckDB reads out of the segments.

The one rule: a question changes nothing and reaches no other file. Nothing is imported into a
database first: each view parses the segments anew, so that what it says is what is archived.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, get_args, get_type_hints

import msgspec

from opsmesh.handlers.errors import ExtraMissing
from opsmesh.handlers.evidence import readonly
from opsmesh.schemas import times
from opsmesh.schemas.envelope import FIELDS, Event

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Memory that one question may take, unless it is told; what needs more goes to a temporary folder.
MEMORY: Final = "512MB"
#: Bytes of the longest line: a message of 1 MiB as base64, and what stands around it.
LONGEST_LINE: Final = 4 * 2**20
#: The envelope's own `seq` counts within a source; in the tables `seq` is the stream's.
RENAMED: Final = {"seq": "source_seq"}

_DEFAULTS: Final = {field.name: field.default for field in msgspec.structs.fields(Event)}
#: `schemas.ids.derived` of (stream, seq) at the store time, in SQL: the id of an event without one.
_TAIL: Final = "sha256(stream || chr(0) || seq)"
_DERIVED_ID: Final = (
    "regexp_replace("
    f"printf('%012x', epoch_us(time) // 1000) || '7' || substr({_TAIL}, 2, 3) "
    f"|| substr('89ab', 1 + (strpos('0123456789abcdef', substr({_TAIL}, 5, 1)) - 1) % 4, 1) "
    f"|| substr({_TAIL}, 6, 15), "
    "'(.{8})(.{4})(.{4})(.{4})(.{12})', '\\1-\\2-\\3-\\4-\\5')"
)
_NAME: Final = re.compile(r"(\d{4})/(\d{2})/(\d{2})-(\d{6,})-[^/]+-\d{12,}\.jsonl(\.zst)?")


class ArchivedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One segment, sealed or not: its name below the folder, its day, its number, its size."""

    name: str
    day: str
    number: int
    size: int


def files(
    folder: Path, *, since_us: int | None = None, until_us: int | None = None
) -> list[ArchivedFile]:
    """The segments that may hold what was stored at or after `since_us` and before `until_us`."""
    since = times.format_us(since_us)[:10] if since_us is not None else ""
    until = times.format_us(until_us)[:10] if until_us is not None else "~"
    found: dict[int, ArchivedFile] = {}
    # plain before sealed: while one is being sealed both are there, and hold the same
    for path in sorted(folder.glob("[0-9]*/[0-9]*/*.jsonl*")):
        name = path.relative_to(folder).as_posix()
        named = _NAME.fullmatch(name)
        if named is None:
            continue
        day = "-".join(named.group(1, 2, 3))
        number = int(named.group(4))
        if day <= until and number not in found:
            found[number] = ArchivedFile(name=name, day=day, number=number, size=_size(path))
    ordered = [found[number] for number in sorted(found)]
    # a note goes into the file that is open, which may be of an earlier day: the one before, too
    first = next((n for n, file in enumerate(ordered) if file.day >= since), len(ordered))
    return ordered[max(0, first - 1) :]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # sealed since: its successor stands in the same listing or the next
        return 0


@contextmanager
def connect(
    folder: Path,
    chosen: Iterable[ArchivedFile],
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    memory: str = MEMORY,
    progress: readonly.Progress | None = None,
    output: Path | None = None,
) -> Iterator[DuckDBPyConnection]:
    """A connection that has the tables over the `chosen` files, limited to that time.

    `output` is the one file that it may write, besides a temporary folder of its own. ExtraMissing
    without DuckDB.
    """
    names = [file.name for file in chosen]
    try:
        import duckdb

        archive = readonly.filesystem(folder, names, progress=progress)
    except ImportError as error:
        raise ExtraMissing("query", str(error)) from error
    settings: dict[str, Any] = {
        "memory_limit": memory,
        "python_enable_replacements": False,  # else a question could name a variable of ours
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with (
        TemporaryDirectory(prefix="opsmesh-query-") as spill,
        duckdb.connect(config=settings) as tables,
    ):
        tables.execute(f"SET temp_directory = {text(spill)}")
        # its own progress bar goes to standard output, into the answer
        tables.execute("SET enable_progress_bar = false")
        tables.execute("SET TimeZone = 'UTC'")  # stored and ts_utc are UTC, so now() has to be
        tables.register_filesystem(archive)
        for statement in _views([readonly.url(name) for name in names], since_us, until_us):
            tables.execute(statement)
        allowed = [readonly.url(name) for name in names]
        allowed += [str(output)] if output is not None else []
        tables.execute(f"SET allowed_paths = {_list(allowed)}")
        tables.execute("SET enable_external_access = false")
        tables.execute("SET lock_configuration = true")
        yield tables


def _views(urls: list[str], since_us: int | None, until_us: int | None) -> Iterator[str]:
    envelope = ", ".join(
        f'"{name}" {"JSON" if kind == "JSON" else "VARCHAR"}' for name, kind in _kinds().items()
    )
    limits = "stream IS NOT NULL"  # what is no line reads as a row of nulls
    if since_us is not None:
        limits += f" AND time >= TIMESTAMP {text(times.format_us(since_us)[:-1])}"
    if until_us is not None:
        limits += f" AND time < TIMESTAMP {text(times.format_us(until_us)[:-1])}"

    def rows(event: str) -> str:
        return f"(SELECT * FROM {_source(urls, event)} WHERE {limits})"  # noqa: S608

    columns = ",\n".join(_column(name, kind) for name, kind in _kinds().items())
    place = "stream, seq, time AS stored"
    file = f"replace(filename, {text(readonly.url(''))}, '') AS file"
    rest = "prev, event, base64, note, hash"
    for name, chosen, kind, only in (
        ("events", columns, f"STRUCT({envelope})", "event IS NOT NULL"),
        ("notes", "note->>'kind' AS kind, note", "JSON", "note IS NOT NULL"),
        ("lines", rest, "JSON", "true"),
    ):
        asked = f"SELECT {place}, {chosen}, {file} FROM {rows(kind)} WHERE {only}"  # noqa: S608
        yield f"CREATE VIEW {name} AS {asked}"


def _source(urls: list[str], event: str) -> str:
    columns = {
        "stream": "VARCHAR",
        "seq": "BIGINT",
        "time": "TIMESTAMP",
        "prev": "VARCHAR",
        "event": event,
        "base64": "VARCHAR",
        "note": "JSON",
        "hash": "VARCHAR",
    }
    if not urls:
        nulls = ", ".join(f"NULL::{kind} AS {name}" for name, kind in columns.items())
        return f"(SELECT {nulls}, NULL::VARCHAR AS filename LIMIT 0)"
    typed = ", ".join(f"{name}: {text(kind)}" for name, kind in columns.items())
    return (
        f"read_json({_list(urls)}, columns = {{{typed}}}, format = 'newline_delimited', "
        f"ignore_errors = true, maximum_object_size = {LONGEST_LINE}, filename = true)"
    )


def _kinds() -> dict[str, str]:
    """The SQL type of each field of the envelope."""
    hints = get_type_hints(Event)
    return {name: _kind(hints[name]) for name in FIELDS}


def _kind(hint: Any) -> str:
    parts = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind, name in ((int, "BIGINT"), (float, "DOUBLE"), (bool, "BOOLEAN")):
        if kind in parts:
            return name
    texts = all(part in (str, types.NoneType) or _literal(part) for part in parts)
    return "VARCHAR" if texts else "JSON"


def _literal(hint: Any) -> bool:
    return all(isinstance(value, str) for value in get_args(hint)) and bool(get_args(hint))


def _column(name: str, kind: str) -> str:
    """A field of the stored event, as a column; a value of another type than it should be is null,
    and never hides its row."""
    value = f'event."{name}"'
    if name == "ts_utc":  # it may be written with another offset
        value = f"TRY_CAST({value} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
    elif name == "id":
        value = f"coalesce({value}, {_DERIVED_ID})"
    elif kind not in ("VARCHAR", "JSON"):
        value = f"TRY_CAST({value} AS {kind})"
    if isinstance(default := _DEFAULTS.get(name), int):  # what is not written when it is this
        value = f"coalesce({value}, {default})"
    return f'{value} AS "{RENAMED.get(name, name)}"'


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(text(value) for value in values) + "]"
