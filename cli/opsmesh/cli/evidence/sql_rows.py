"""An answer of the database as text: a table for people, JSON, JSON lines and CSV for programs.

Times are UTC in the form the envelope has them; a JSON column is JSON in JSON, and its own text
elsewhere.
"""

from __future__ import annotations

import base64
import csv
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from datetime import time as clock
from decimal import Decimal
from typing import Any, Final

import msgspec

from opsmesh.cli import output
from opsmesh.handlers.evidence.query import Answer

#: Rows that a table shows; people do not read more, and a table has to be in memory as a whole.
SHOWN: Final = 1000


def _table(answer: Answer) -> None:
    rows = list(itertools.islice(answer.rows, SHOWN + 1))
    names = _names(answer)
    output.table(
        [dict(zip(names, map(_shown, row), strict=True)) for row in rows[:SHOWN]],
        names,
        empty="no rows",
    )
    if len(rows) > SHOWN:
        output.note(f"only the first {SHOWN} rows are shown; LIMIT, or --format csv, has them all")


def _json(answer: Answer) -> None:
    sys.stdout.write("[")
    for n, text in enumerate(_objects(answer)):
        sys.stdout.write(f"{',' if n else ''}\n  {text}")
    sys.stdout.write("\n]\n")


def _jsonl(answer: Answer) -> None:
    for text in _objects(answer):
        sys.stdout.write(text + "\n")


def _csv(answer: Answer) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([column.name for column in answer.columns])
    for row in answer.rows:
        writer.writerow(["" if value is None else _text(value) for value in row])


WRITERS: Final[dict[str, Callable[[Answer], None]]] = {
    "table": _table,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
}


def _names(answer: Answer) -> list[str]:
    """A name for each column, also where the question gives one twice."""
    names: list[str] = []
    for column in answer.columns:
        name, n = column.name, 2
        while name in names:
            name, n = f"{column.name}_{n}", n + 1
        names.append(name)
    return names


def _objects(answer: Answer) -> Iterator[str]:
    names = _names(answer)
    raw = [column.kind == "JSON" for column in answer.columns]
    for row in answer.rows:
        values = (
            msgspec.Raw(value.encode()) if is_raw and value is not None else _plain(value)
            for value, is_raw in zip(row, raw, strict=True)
        )
        yield msgspec.json.encode(dict(zip(names, values, strict=True))).decode()


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_text(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        return msgspec.Raw(str(value).encode()) if value.is_finite() else None
    return _text(value)


def _shown(value: Any) -> Any:
    """The value in a table: false is told from nothing."""
    return None if value is None else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        at = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        return at.isoformat(timespec="microseconds") + "Z"
    if isinstance(value, date | clock):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict | list | tuple):
        return msgspec.json.encode(_plain(value)).decode()
    return str(value)
