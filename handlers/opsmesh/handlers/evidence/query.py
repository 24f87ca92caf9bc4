"""One SQL question to the archive, and its answer row by row.

Only a question is taken: what would change something is refused by its kind before it runs, and
what hides in a question fails because nothing can be written (`tables`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from opsmesh.handlers.errors import QueryError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

#: Rows that are fetched at once; the rest of the answer stays in the database.
BATCH: Final = 2048
#: Kinds of statement that only ask (MULTI is how DuckDB carries out a PIVOT).
ASKING: Final = ("SELECT", "EXPLAIN", "MULTI")


class Column(msgspec.Struct, frozen=True):
    """One column of an answer; `kind` is its SQL type."""

    name: str
    kind: str


class Answer(msgspec.Struct, frozen=True):
    """An answer's columns, and its rows as they are fetched."""

    columns: list[Column]
    rows: Iterator[tuple[Any, ...]]


def ask(tables: DuckDBPyConnection, sql: str) -> Answer:
    """The answer to one question. QueryError when there is none; KeyboardInterrupt on Ctrl-C, also
    while rows are fetched."""
    with explained():
        statements = tables.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError(
            f"one question at a time, and this text holds {len(statements)}",
            hint="tables are events, notes and lines: SELECT * FROM events LIMIT 5",
        )
    kind = statements[0].type.name
    if kind not in ASKING:
        raise QueryError(
            f"{kind} is no question: evidence can only be read",
            hint="ask with SELECT, WITH, FROM, DESCRIBE or SUMMARIZE",
        )
    with explained():
        asked = tables.execute(sql)
    columns = [Column(str(one[0]), str(one[1])) for one in asked.description or ()]
    return Answer(columns, _rows(asked))


def _rows(asked: DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while True:
        with explained():
            rows = asked.fetchmany(BATCH)
        if not rows:
            return
        yield from rows


@contextmanager
def explained() -> Iterator[None]:
    """What DuckDB raises, as ours: its message with the caret, without what is only its own."""
    import duckdb

    try:
        yield
    except duckdb.PermissionException as error:
        place = str(error).partition("\n")[0].partition(" - ")[0]
        raise QueryError(
            f"{place.removeprefix('Permission Error: ')}: a question reads the archive, and "
            "nothing else",
            hint="tables are events, notes and lines",
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise QueryError(
            str(error).partition("\n")[0], hint="give it more: --memory 2GB, or a shorter --since"
        ) from error
    except duckdb.Error as error:
        text = str(error)
        if text.startswith("Traceback"):  # of our own file system
            text = text.strip().splitlines()[-1].partition(": ")[2]
        raise QueryError(text) from error
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
