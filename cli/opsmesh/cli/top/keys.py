"""The keys of `top`, as help tells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

HELP: Final[Sequence[tuple[str, Sequence[tuple[str, str]]]]] = (
    (
        "Views",
        (
            ("1 … 7", "events, profiles, runs, dlq,"),
            ("", "approvals, producers, mesh"),
            ("tab  shift+tab", "the next one, the one before"),
            (":", "by name, or its beginning: :ru; :q ends"),
        ),
    ),
    (
        "Moving",
        (
            ("j k  ↓ ↑", "a row"),
            ("ctrl+d ctrl+u  pgdn pgup", "a page"),
            ("g G  home end", "the first, the last; at the last it follows"),
            ("enter  l", "all of a row"),
            ("esc", "back; takes the filter away"),
        ),
    ),
    (
        "Looking",
        (
            ("/", "filter; python.> is a topic, other words text;"),
            ("", "!word is without; all have to match"),
            ("f", "what belongs to it: a profile's runs, …"),
            ("space", "events: pause, and go on"),
        ),
    ),
    (
        "Doing",
        (
            ("y n", "approvals: yes, no; asks for a comment"),
            ("r d", "dlq: send again, give up; R D all shown"),
        ),
    ),
    ("", (("q  ctrl+c", "end"),)),
)


def text() -> Text:
    """All of them, for a screen of 80 columns."""
    found = Text()
    for title, keys in HELP:
        if title:
            found.append(f"{title}\n", "bold")
        for key, does in keys:
            found.append(f"  {key:<25}", "cyan")
            found.append(f"{does}\n")
    found.rstrip()
    return found
