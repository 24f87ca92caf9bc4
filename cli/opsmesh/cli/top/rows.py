"""The list on the screen: a cursor over rows, of which only those that are seen are drawn.

The one rule: what is not on the screen costs nothing, however many rows there are and however fast
they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from opsmesh.cli.output import shown
from opsmesh.cli.top.listing import Cell, Listing, widths
from opsmesh.schemas import times

#: The line of column names.
HEAD: Final = 1
_style = lru_cache(maxsize=256)(Style.parse)


class Rows(Widget, can_focus=True):
    """Shows the items of one listing. The cursor stays at its item; at the newest of a listing that
    follows, it stays at the newest."""

    DEFAULT_CSS = "Rows { height: 1fr; }"
    # a screen would move the focus with them, and asks before the app is asked
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,right_square_bracket", "app.turn(1)", show=False),
        Binding("shift+tab,left_square_bracket", "app.turn(-1)", show=False),
    ]

    class Opened(Message):
        """Somebody wants to know more of the row at the cursor."""

    class Moved(Message):
        """The cursor was moved by a person."""

    def __init__(self, listing: Listing) -> None:
        super().__init__()
        self.listing = listing
        self.items: Sequence[Any] = ()
        self.cursor = 0
        self.following = listing.follows
        self._top = 0
        self._said = listing.empty
        self._now_us = times.now_us()

    @property
    def current(self) -> Any | None:
        """The item at the cursor."""
        return self.items[self.cursor] if self.items else None

    @property
    def page(self) -> int:
        """Rows that have a place."""
        return max(1, self.size.height - HEAD)

    def show(self, listing: Listing, items: Sequence[Any], *, said: str = "") -> None:
        """Show these items, and `said` when there are none."""
        if listing is not self.listing:
            self.listing, self.cursor, self._top = listing, 0, 0
            self.following = listing.follows
        elif not self.following and (at := self.current) is not None:
            self._keep(listing.key(at), items)
        self.items = items
        self._said = said or listing.empty
        self._now_us = times.now_us()
        last = max(0, len(items) - 1)
        self.cursor = last if self.following else min(self.cursor, last)
        self._scroll()
        self.refresh()

    def move(self, by: int) -> None:
        """Move the cursor by so many rows, as far as there are any."""
        self.to(self.cursor + by)

    def to(self, row: int) -> None:
        """Move the cursor to a row; negative ones and those beyond the end are the ends."""
        last = max(0, len(self.items) - 1)
        self.cursor = max(0, min(row, last))
        self.following = self.listing.follows and self.cursor == last
        self._scroll()
        self.post_message(self.Moved())
        self.refresh()

    def _keep(self, key: str, items: Sequence[Any]) -> None:
        """Have the cursor at the item of that key, as far down the screen as it was."""
        listing = self.listing
        if self.cursor < len(items) and listing.key(items[self.cursor]) == key:
            return
        found = next((n for n, item in enumerate(items) if listing.key(item) == key), None)
        if found is not None:
            self._top += found - self.cursor
            self.cursor = found

    def _scroll(self) -> None:
        furthest = max(0, len(self.items) - self.page)
        self._top = max(0, min(self._top, furthest, self.cursor))
        self._top = max(self._top, self.cursor - self.page + 1)

    def on_resize(self, _: events.Resize) -> None:
        self._scroll()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        row = self._top + event.y - HEAD
        if event.y < HEAD or row >= len(self.items):
            return
        again = row == self.cursor
        self.to(row)
        if again:
            self.post_message(self.Opened())

    def on_mouse_scroll_down(self, _: events.MouseScrollDown) -> None:
        self.move(3)

    def on_mouse_scroll_up(self, _: events.MouseScrollUp) -> None:
        self.move(-3)

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        wide = widths(self.listing.columns, width)
        row = self._top + y - HEAD
        if y < HEAD:
            cells: Sequence[Cell] = [(one.name.upper(), "bold") for one in self.listing.columns]
        elif not self.items and y == HEAD + 1:
            text = set_cell_size(f"  {shown(self._said)}", width)
            return Strip([Segment(text, base + _style("dim"))], width)
        elif row >= len(self.items):
            return Strip.blank(width, base)
        else:
            cells = self.listing.cells(self.items[row], self._now_us)
        at_cursor = y >= HEAD and row == self.cursor
        gap = base + _style("reverse") if at_cursor else base
        parts: list[Segment] = []
        for column, room, (text, style) in zip(self.listing.columns, wide, cells, strict=True):
            if not room:
                continue
            if parts:
                parts.append(Segment(" ", gap))
            look = gap + _style("bold" if at_cursor and "bold" in style else "")
            if not at_cursor:
                look = base + _style(style)
            parts.append(Segment(fit(text, room, right=column.right), look))
        return Strip(parts).adjust_cell_length(width, gap)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """A stranger's text in exactly so many cells, on one line, and acting on no terminal."""
    text = shown(" ".join(text[: 4 * width].split()))
    if cell_len(text) > width:
        return set_cell_size(text, max(0, width - 1)) + "…"
    return " " * (width - cell_len(text)) + text if right else set_cell_size(text, width)
