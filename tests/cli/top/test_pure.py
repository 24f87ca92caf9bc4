"""What `opsmesh top` shows, without a screen."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from rich.terminal_theme import TerminalTheme

pytest.importorskip("textual", reason="textual is not installed: make extras")

from tests.cli.contrast import contrast
from tests.cli.top.seen import event, see

from opsmesh.cli.top import head, themes
from opsmesh.cli.top.filters import Filter
from opsmesh.cli.top.listing import ago, widths
from opsmesh.cli.top.lists.approvals import Approvals
from opsmesh.cli.top.lists.events import Events
from opsmesh.cli.top.lists.letters import Letters
from opsmesh.cli.top.lists.mesh import Mesh
from opsmesh.cli.top.lists.producers import Producers
from opsmesh.cli.top.lists.profiles import Profiles
from opsmesh.cli.top.lists.runs import Runs
from opsmesh.cli.top.rows import fit
from opsmesh.cli.top.sieve import Sieve
from opsmesh.cli.view.model import View

LISTINGS = (Events(), Profiles(), Runs(), Letters(), Approvals(), Producers(), Mesh())


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("", True),
        ("python.>", True),
        ("*.test.failed", True),
        ("*.failed", False),
        ("shell.>", False),
        ("!shell.>", True),
        ("!python.>", False),
        ("TEST_SUM", True),
        ("desk test_sum", True),
        ("desk nowhere", False),
        ("!nowhere", True),
        ("python.> !test_sum", False),
        ("!", True),
    ],
)
def test_a_filter(typed: str, shown: bool) -> None:
    """Words with wildcards are topics, others text; all have to match, ! turns one round."""
    one = event()
    text = f"{one.host} {one.payload}"
    assert Filter(typed).lets(one.topic, lambda: text) is shown


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda one: one.name)
@pytest.mark.parametrize("width", [80, 81, 120, 237])
def test_columns_fit(listing: Events, width: int) -> None:
    """The columns of each view fill the screen but for a few characters, and are never wider."""
    found = [one for one in widths(listing.columns, width) if one]
    total = sum(found) + len(found) - 1
    assert width - len(found) <= total <= width


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "now"), (59, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86_400 * 12, "12d")],
)
def test_ago(seconds: int, said: str) -> None:
    """An age is told in its largest unit."""
    now_us = 1_800_000_000_000_000
    assert ago(now_us - seconds * 1_000_000, now_us) == said


def test_the_line_of_the_rate() -> None:
    """The highest figure is as high as a line is, little is more than nothing."""
    assert head.spark([0, 1, 500, 1000]) == "▁▂▅█"
    assert head.spark([0, 0]) == "▁▁"


@pytest.mark.parametrize(
    ("light", "colorfgbg", "name"),
    [
        (None, "", "ansi-dark"),
        (None, "0;15", "ansi-light"),
        (None, "15;0", "ansi-dark"),
        (None, "0;default;7", "ansi-light"),
        (True, "15;0", "opsmesh-light"),
        (False, "0;15", "opsmesh-dark"),
    ],
)
def test_the_theme(light: bool | None, colorfgbg: str, name: str) -> None:
    """Colours are the terminal's own unless somebody says otherwise."""
    assert themes.theme({"COLORFGBG": colorfgbg}, light=light) == name


@pytest.mark.parametrize(
    "text", ["", "short", "a" * 30, "日本語日本語日本語", "\x1b[31mred", "two\nlines", "\u202eback"]
)
def test_a_strangers_text_has_its_place(text: str) -> None:
    """A cell is exactly as wide as its column, whatever its text, and acts on no terminal."""
    for right in (False, True):
        found = fit(text, 12, right=right)
        assert cell_len(found) == 12
        assert found.isprintable()


def test_an_item_is_looked_at_once() -> None:
    """A filter is asked for each event once, however often the screen is drawn."""
    view, listing, sieve, asked = View(), Events(), Sieve(), []

    class Counted(Filter):
        def lets(self, topic: str, shown: object) -> bool:
            asked.append(topic)
            return True

    wanted = Counted("x")
    for n in range(3):
        see(view)
        assert len(sieve.through(listing, view.events, wanted)) == n + 1
    assert len(asked) == 3


@pytest.mark.parametrize("theme", [themes.WHITE, themes.BLACK], ids=["light", "dark"])
def test_colours_can_be_read(theme: TerminalTheme) -> None:
    """Each colour on a screen of our own stands out from its background by 4.5 to 1."""
    for number in range(1, 7):
        assert contrast(theme.ansi_colors[number], theme.background_color) >= 4.5, number
