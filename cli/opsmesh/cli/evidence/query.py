"""`opsmesh evidence query`: SQL over the archive."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from opsmesh.cli import output
from opsmesh.cli.events import moment
from opsmesh.cli.evidence import sql_rows
from opsmesh.handlers.errors import QueryError
from opsmesh.handlers.evidence import query as questions
from opsmesh.handlers.evidence import tables
from opsmesh.router.settings import Settings

#: Seconds after which a question that takes long shows how far it has read.
PATIENCE = 1.0
#: Seconds between updates of that line.
REFRESH = 0.1


_SIZE = re.compile(r"\d+(\.\d+)? ?[KMGT]i?B", re.IGNORECASE)


def size(text: str) -> str:
    """`--memory`: a number and its unit."""
    if not _SIZE.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no size like 512MB or 2GB")
    return text


class Format(StrEnum):
    """How an answer is written."""

    table = "table"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


def query(
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="The question; - reads it from standard input.")
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the question from this file.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what was stored from this age (7d) or time on.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only what was stored before.")] = None,
    form: Annotated[Format, typer.Option("--format", help="How to write the answer.")] = (
        Format.table
    ),
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    memory: Annotated[
        str, typer.Option(parser=size, metavar="SIZE", help="Memory it may take.")
    ] = tables.MEMORY,
) -> None:
    """Ask the archive in SQL (DuckDB's). Needs the extra: pip install 'opsmesh\\[query]'.

    Tables: events (the envelope's fields as columns, payload as JSON), notes, lines. Days that
    --since and --until leave out are not opened.

    \b
    opsmesh evidence query "SELECT topic, count(*) FROM events GROUP BY topic" --since 7d
    opsmesh evidence query "SELECT payload->>'unit' FROM events WHERE severity = 'error'"
    opsmesh evidence query "DESCRIBE events"
    """
    question = _question(sql, file)
    since_us, until_us = moment(since), moment(until)
    folder = Settings().evidence_dir
    chosen = tables.files(folder, since_us=since_us, until_us=until_us)
    if not chosen and not tables.files(folder):
        output.fail(
            f"nothing is archived in {folder}",
            hint="the sink runs with the mesh: opsmesh up",
            code=output.NOT_FOUND,
        )
    write = sql_rows.WRITERS["json" if as_json else form.value]
    try:
        with (
            reading("asking", sum(file.size for file in chosen)) as read,
            tables.connect(
                folder, chosen, since_us=since_us, until_us=until_us, memory=memory, progress=read
            ) as connection,
        ):
            answer = questions.ask(connection, question)
            write(answer)
    except QueryError as error:
        output.fail(str(error), hint=error.hint)


def _question(sql: str, file: Path | None) -> str:
    if bool(sql) == (file is not None):
        output.fail(
            "say what to ask: an SQL text, - for standard input, or --file FILE",
            hint='opsmesh evidence query "SELECT topic, count(*) FROM events GROUP BY topic"',
            code=output.USAGE,
        )
    if file is None:
        return sys.stdin.read() if sql == "-" else sql
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        output.fail(f"{file} cannot be read: {error}", code=output.USAGE)


@contextmanager
def reading(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Tell on standard error, on a terminal alone, how much has been read once it takes long; the
    callable hears of bytes read, from any thread."""
    began = time.monotonic()
    shown, done = began + PATIENCE, 0
    terminal = sys.stderr.isatty()

    def read(size: int) -> None:
        nonlocal shown, done
        done += size
        if terminal and time.monotonic() >= shown:
            shown = time.monotonic() + REFRESH
            share = f" of {total / 2**20:,.0f}" if done <= total else ""
            sys.stderr.write(f"\r\x1b[K{what}: {done / 2**20:,.0f}{share} MB read")
            sys.stderr.flush()

    try:
        yield read
    finally:
        if terminal and shown > began + PATIENCE:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
