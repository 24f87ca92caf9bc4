"""One view of `top`: what its rows are, what a row shows, and what is told of it on Enter.

The one rule: a view is plain data made from the read model. It knows no widget and does no I/O, so
that only what is on the screen is ever drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rich.console import Console

from opsmesh.cli.view.model import View

#: A piece of a row: its text and its style, in Rich's words. Colours are the terminal's own names,
#: which every theme has for its background.
Cell = tuple[str, str]

DIM: Final = "dim"
PLAIN: Final = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """`width` characters at least; what a wide terminal has beside goes out by `grow`. It is there
    from a terminal of `since` columns on."""

    name: str
    width: int
    grow: int = 0
    since: int = 0
    right: bool = False


class Listing(Protocol):
    """One view. Its items are of any type, its own."""

    @property
    def name(self) -> str:
        """As it stands in the tabs, and is typed after `:`."""
        ...

    @property
    def columns(self) -> Sequence[Column]:
        """From the left to the right."""
        ...

    @property
    def empty(self) -> str:
        """What is said when there are no items."""
        ...

    @property
    def follows(self) -> bool:
        """Whether the last row is the newest, and is stayed at."""
        ...

    @property
    def keys(self) -> Sequence[tuple[str, str]]:
        """Keys of its own, and what they do, for the last line."""
        ...

    def items(self, view: View) -> Sequence[Any]:
        """All there are, in the order of the screen."""
        ...

    def key(self, item: Any) -> str:
        """What it is known by after a change."""
        ...

    def title(self, item: Any) -> str:
        """What stands above all that is told of it."""
        ...

    def topic(self, item: Any) -> str:
        """What a topic with wildcards is compared with."""
        ...

    def text(self, item: Any) -> str:
        """What a word is looked for in."""
        ...

    def cells(self, item: Any, now_us: int) -> Sequence[Cell]:
        """One for each column."""
        ...

    def leads(self, item: Any) -> tuple[str, str]:
        """A view, and the filter that shows what belongs to the item there; "" when nothing can
        be told."""
        ...

    def tell(self, console: Console, item: Any, view: View) -> None:
        """All that is known of it, printed."""
        ...


def widths(columns: Sequence[Column], total: int) -> list[int]:
    """The width of each column on a screen of `total`, 0 for one that has no place there; columns
    are one blank apart."""
    there = [column for column in columns if column.since <= total]
    spare = max(0, total - sum(column.width for column in there) - max(0, len(there) - 1))
    shares = sum(column.grow for column in there)
    found: list[int] = []
    for column in columns:
        more = spare * column.grow // shares if shares else 0
        found.append(0 if column.since > total else column.width + more)
    return found


def ago(us: int, now_us: int) -> str:
    """How long ago, in four characters: `now`, `12s`, `5m`, `3h`, `2d`."""
    if not us:
        return "-"
    seconds = max(0, now_us - us) // 1_000_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s" if seconds else "now"
