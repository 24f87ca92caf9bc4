"""How the command line speaks: tables for people, JSON for programs, errors with a next step.

Nothing else in `cli` prints a table or decides an exit code. What is stored is a stranger's: on a
terminal it is shown, and never acts on it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from opsmesh.schemas import times

#: Exit codes, beside 0: something is wrong that the command reports (1), the call is wrong (2),
#: what was asked for is not there (3), the mesh cannot be reached (69, EX_UNAVAILABLE).
FAILED, USAGE, NOT_FOUND, UNAVAILABLE = 1, 2, 3, 69


#: What a terminal obeys, and what turns a text around, by how it is written instead.
_ACTS: Final = {
    **{n: f"\\x{n:02x}" for n in (*range(0x20), *range(0x7F, 0xA0)) if n not in (0x09, 0x0A)},
    **{n: f"\\u{n:04x}" for n in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))},
}
#: JSON escapes the lower half by itself.
_ACTS_IN_JSON: Final = {n: f"\\u{n:04x}" for n in _ACTS if n >= 0x7F}


def shown(text: str) -> str:
    """A text whose controls and marks of direction are seen; line breaks and tabs stay."""
    return text.translate(_ACTS)


class Screen(Console):
    """A console on which no text acts."""

    def print(self, *objects: Any, **how: Any) -> None:
        super().print(*(shown(one) if isinstance(one, str) else one for one in objects), **how)


def as_json(value: Any) -> None:
    """One JSON document to standard output; times in it are UTC."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write(text.translate(_ACTS_IN_JSON) + "\n")


def console() -> Console:
    """Where people read. A pipe has no width: nothing is cut that a program may want."""
    found = Screen(highlight=False, soft_wrap=True)
    return found if found.is_terminal else Screen(width=10_000, highlight=False, soft_wrap=True)


def table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    empty: str,
    style: Callable[[str, Any], str] | None = None,
    to: Console | None = None,
) -> None:
    """A table for people; `empty` is said when there are no rows. `style` gives a cell's colour,
    `to` is where it is drawn, if not where people read."""
    rows = list(rows)
    if not rows:
        Screen(stderr=True).print(empty, style="dim", highlight=False)
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        drawn.add_column(name.upper().replace("_", " "), overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(name, row.get(name), style) for name in columns))
    (to or console()).print(drawn)


def _cell(name: str, value: Any, style: Callable[[str, Any], str] | None) -> str:
    text = shown("-" if value is None or value is False or value == "" else str(value))
    text = escape(text)
    colour = style(name, value) if style else ""
    return f"[{colour}]{text}[/]" if colour else text


def local(ts_utc: str) -> str:
    """The time in the local zone, for people: `09:12:00.123`, with its date when not today."""
    return times.clock(times.parse_us(ts_utc))


def fail(message: str, *, hint: str = "", code: int = FAILED) -> NoReturn:
    """End the command with an error on standard error, and what to do next."""
    speaker = Screen(stderr=True, soft_wrap=True, highlight=False)
    speaker.print(f"[bold red]error:[/] {escape(message)}")
    if hint:
        speaker.print(f"[dim]{escape(hint)}[/]")
    raise typer.Exit(code)


def note(message: str) -> None:
    """A line for people on standard error, so that standard output stays a program's."""
    Screen(stderr=True, soft_wrap=True).print(escape(message), highlight=False)
