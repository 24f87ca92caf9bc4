"""The corpus: five hundred texts, the same every time. What people wrote, then what is made of it:
each command in each way that a shell could be made to run it, and classics within classics.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.handlers.hostile.classics import CLASSICS, COMMANDS, SHELL

SIZE: Final = 500


@dataclass(frozen=True)
class Hostile:
    """One text, and the family that it is of. `name` is a test's id."""

    family: str
    text: str

    @property
    def name(self) -> str:
        """Short, and its own."""
        return f"{self.family}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"


def corpus() -> list[Hostile]:
    """All of them; every classic is one."""
    found: dict[str, Hostile] = {}
    for one in itertools.chain(_classics(), _made()):
        found.setdefault(one.text, one)
        if len(found) == SIZE:
            break
    return list(found.values())


def sample(size: int) -> list[Hostile]:
    """Some of them, from every family, and the same ones every time."""
    families: dict[str, list[Hostile]] = {}
    for one in corpus():
        families.setdefault(one.family, []).append(one)
    for members in families.values():
        members.sort(key=lambda one: hashlib.sha256(one.text.encode()).digest())
    turns = itertools.chain(*itertools.zip_longest(*families.values()))
    return [one for one in turns if one is not None][:size]


def _classics() -> Iterator[Hostile]:
    for family, texts in CLASSICS.items():
        yield from (Hostile(family, text) for text in texts)


def _made() -> Iterator[Hostile]:
    for command, how in itertools.product(COMMANDS, SHELL):
        yield Hostile("shell", how.format(command))
    wholes = [text for texts in CLASSICS.values() for text in texts if 0 < len(text) < 60]
    for n, text in enumerate(wholes):
        other = wholes[(n * 7 + 3) % len(wholes)]
        yield Hostile("mixed", f"{text}\n{other}\x1b[0m\u202e{text}")
