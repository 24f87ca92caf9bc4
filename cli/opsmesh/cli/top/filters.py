"""What `/` takes: words that all have to match. Pure.

A word with a wildcard (`*`, `>`) is a topic as NATS writes it, any other is looked for in what is
shown, in whatever case; `!` before it turns it around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from opsmesh.router.auth.permissions import covers

NOT: Final = "!"
WILDCARDS: Final = frozenset("*>")


@dataclass(frozen=True)
class Filter:
    """What a person has typed."""

    text: str = ""

    def __bool__(self) -> bool:
        return bool(self.text.split())

    def lets(self, topic: str, shown: Callable[[], str]) -> bool:
        """Whether a row is shown; `shown` gives its text, and is asked only when that matters."""
        text = ""
        for word in self.text.lower().split():
            wanted = not word.startswith(NOT)
            word = word.removeprefix(NOT)
            if not word:
                continue
            if WILDCARDS & set(word):
                found = covers(word, topic)
            else:
                text = text or shown().lower()
                found = word in text
            if found is not wanted:
                return False
        return True
