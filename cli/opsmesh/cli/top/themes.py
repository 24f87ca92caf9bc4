"""Which colours `top` has: the terminal's own, unless somebody asks for a light or a dark screen.

The one rule: rows name the eight colours that every terminal has. What they are on a screen of our
own is said here, each with a contrast of 4.5 or more to its background.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.terminal_theme import TerminalTheme
from textual.theme import Theme

#: Backgrounds of COLORFGBG (`0;15`) that are light.
LIGHT: Final = frozenset({"7", "15"})

_ON_WHITE: Final = [
    *((26, 26, 26), (176, 0, 32), (20, 110, 30), (128, 88, 0)),
    *((0, 80, 180), (128, 50, 150), (0, 105, 125), (95, 95, 95)),
]
_ON_BLACK: Final = [
    *((16, 18, 22), (255, 110, 110), (120, 200, 100), (230, 190, 80)),
    *((110, 170, 255), (215, 140, 235), (90, 200, 215), (225, 225, 225)),
]
WHITE: Final = TerminalTheme((255, 255, 255), (26, 26, 26), _ON_WHITE)
BLACK: Final = TerminalTheme((16, 18, 22), (225, 225, 225), _ON_BLACK)
OWN: Final = (
    Theme(
        name="opsmesh-light",
        dark=False,
        primary="#0050b4",
        foreground="#1a1a1a",
        background="#ffffff",
        surface="#ffffff",
        panel="#e8e8e8",
    ),
    Theme(
        name="opsmesh-dark",
        dark=True,
        primary="#6eaaff",
        foreground="#e1e1e1",
        background="#101216",
        surface="#101216",
        panel="#2a2d33",
    ),
)


def theme(environ: Mapping[str, str], *, light: bool | None) -> str:
    """The name of the theme. The two that begin with `ansi` have the terminal's own background and
    colours, and differ in details."""
    if light is not None:
        return "opsmesh-light" if light else "opsmesh-dark"
    background = environ.get("COLORFGBG", "").rpartition(";")[2]
    return "ansi-light" if background in LIGHT else "ansi-dark"
