"""The lines around the list: how the mesh is, the rate, the views, the keys. Pure.

The one rule: what is wrong is said in words and by a mark, never by a colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from opsmesh.cli.output import shown
from opsmesh.cli.top.filters import Filter
from opsmesh.cli.top.listing import Listing
from opsmesh.cli.view.model import View

BARS: Final = "▁▂▃▄▅▆▇█"
#: Seconds that the line of the rate reaches back, on a wide screen and on a narrow one.
WIDE_S, NARROW_S = 60, 30
#: From so many columns on a screen is wide.
WIDE: Final = 100
#: Seconds over which the rate is told.
RATE_S: Final = 5
VERDICTS: Final = {"ok": ("●", "green"), "degraded": ("▲", "yellow"), "down": ("✗", "bold red")}


def spark(figures: Sequence[int]) -> str:
    """One character a figure, the highest of them as high as a line is; nothing is the lowest."""
    top = max(figures, default=0)
    if not top:
        return BARS[0] * len(figures)
    return "".join(BARS[-(-one * (len(BARS) - 1) // top)] for one in figures)


def state(view: View, *, width: int, now_us: int) -> Text:
    """The first line: whether the mesh is well, and how much happens."""
    line = Text()
    line.append(" opsmesh ", "bold reverse")
    if not view.connected and view.health is None:
        line.append(" … looking for the broker", "yellow")
    elif not view.connected:
        line.append(" ✗ the broker is away; what is shown is from before", "bold red")
    elif not view.verdict:
        line.append(" … looking", "dim")
    else:
        mark, style = VERDICTS[view.verdict]
        line.append(f" {mark} {view.verdict}", style)
        line.append(f"  {shown(view.of)}", "dim")
    seconds = WIDE_S if width >= WIDE else NARROW_S
    rates = view.rates(now_us, seconds=seconds)
    rate = sum(rates[-RATE_S:]) / RATE_S
    right = Text.assemble(
        (spark(rates), "cyan"), (f" {rate:,.0f}/s " if rate >= 10 else f" {rate:.1f}/s ", "bold")
    )
    room = width - line.cell_len - right.cell_len
    if room >= 1:
        line.append(" " * room)
        line.append_text(right)
    line.truncate(width)
    return line


def trouble(view: View, *, width: int) -> Text:
    """What is wrong, the first of it with what mends it; empty when nothing is."""
    problems = view.problems
    if not problems:
        return Text()
    first = problems[0]
    more = f"  (+{len(problems) - 1}: 7)" if len(problems) > 1 else ""
    line = Text()
    line.append(f" ✗ {_one_line(first['what'])}", "red")
    line.append(f" → {_one_line(first['fix'])}", "bold")
    line.truncate(width - len(more), overflow="ellipsis")
    line.append(more, "dim")
    return line


def tabs(listings: Sequence[Listing], now: Listing, view: View) -> Text:
    """The views with their keys; those that ask for something tell how much."""
    waiting = {"dlq": len(view.letters), "approvals": len(view.approvals)}
    line = Text(" ")
    for n, listing in enumerate(listings, 1):
        count = f" {number}" if (number := waiting.get(listing.name)) else ""
        style = "bold reverse" if listing is now else "yellow" if count else ""
        line.append(f"{n} {listing.name}{count}", style)
        line.append("  ")
    return line


def foot(
    listing: Listing,
    wanted: Filter,
    *,
    of: tuple[int, int],
    width: int,
    new: int = 0,
    paused: bool = False,
) -> Text:
    """The last line: how many are shown of how many, the filter, and the keys."""
    some, every = of
    line = Text(" ")
    if paused:
        line.append(f"paused, {new:,} new: G goes on  ", "bold yellow")
    line.append(f"{some:,}" if some == every else f"{some:,} of {every:,}", "bold")
    if wanted:
        line.append(f"  /{shown(wanted.text)}", "cyan")
        line.append(" (esc)", "dim")
    for key, does in (*listing.keys, ("enter", "details"), ("/", "filter"), ("?", "help")):
        line.append("  ")
        line.append(key, "bold")
        line.append(f" {does}", "dim")
    line.truncate(width, overflow="ellipsis")
    return line


def _one_line(text: str) -> str:
    return " ".join(shown(text).split())
