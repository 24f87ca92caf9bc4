"""Equal failures as one: reasons without what differs from one event to the next.

Two letters are of one group when the same profile failed for the same reason, once numbers, ids,
paths, addresses and times in it are placeholders. What tells failures apart stays: exit status,
signal, errno and HTTP status keep their number.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from opsmesh.router.deadletter import Letter

#: Characters of a group's key: enough to tell the groups of one queue apart.
KEY_LENGTH: Final = 8

#: What differs, in the order in which it is looked for; `kept` stays as it is. No part may begin
#: in the middle of what it matches: a reason is as long as a program likes, and each is looked at.
_VARIES: Final = re.compile(
    r"(?P<kept>\b(?:exit(?:ed with)? (?:status|code)|status code|signal|errno|http)[ :=]*-?\d+\b)"
    r"|(?P<url>(?<![\w+.-])[a-z][a-z0-9+.-]*://[^\s'\"<>)\]},;]+)"
    r"|(?P<time>\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)?\b"
    r"|\b\d{1,2}:\d\d:\d\d(?:[.,]\d+)?\b)"
    r"|(?P<id>\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b)"
    r"|(?P<address>\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b)"
    r"|(?P<path>(?<![\w.~@+-])[\w.~@+-]*(?:/[\w.~@+=%-]*)+(?:::[^\s'\"]+|(?::\d+)+)?)"
    r"|(?P<hex>\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,}\b)"
    r"|(?P<n>(?<![A-Za-z_0-9])\d+(?:[.,]\d+)*)",
    re.IGNORECASE,
)


@functools.lru_cache(maxsize=65_536)
def normal(reason: str) -> str:
    """The reason with placeholders for what differs from one event to the next."""
    return " ".join(_VARIES.sub(_placeholder, reason).split())


def _placeholder(found: re.Match[str]) -> str:
    kind, text = found.lastgroup, found.group()
    if kind == "kept" or (kind == "path" and not _is_path(text)):
        return text
    return f"<{kind}>"


def _is_path(text: str) -> bool:
    """`/x`, `~/x`, `./x`, `a/b.py`, `a/b/c`; but not the `and/or` of a sentence, nor a lone `/`."""
    if len(text) > 1 and text.startswith(("/", "~", "./", "../")):
        return True
    return text.count("/") > 1 or "." in text.rpartition("/")[2]


def key(letter: Letter) -> str:
    """The key of the letter's group; the same failure has the same key tomorrow."""
    return _key(letter.profile, normal(letter.reason))


@functools.lru_cache(maxsize=65_536)
def _key(profile: str, reason: str) -> str:
    return hashlib.sha256(f"{profile}\0{reason}".encode()).hexdigest()[:KEY_LENGTH]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Letters that failed alike; times in microseconds since the epoch."""

    key: str
    count: int
    profile: str
    topics: list[str]
    reason: str
    first_us: int
    last_us: int
    example_seq: int
    example_reason: str


class _Sum:
    """A group while letters are counted."""

    __slots__ = ("count", "first_us", "last", "topics")

    def __init__(self, letter: Letter) -> None:
        self.count = 0
        self.first_us = letter.stored_us
        self.topics: dict[str, None] = {}
        self.last = letter

    def add(self, letter: Letter) -> None:
        self.count += 1
        self.first_us = min(self.first_us, letter.stored_us)
        self.topics[letter.topic] = None
        if letter.stored_us >= self.last.stored_us:
            self.last = letter


def grouped(letters: Iterable[Letter]) -> list[Group]:
    """The groups, the largest first; the example is the newest letter of each."""
    sums: dict[str, _Sum] = {}
    for letter in letters:
        one = sums.setdefault(key(letter), _Sum(letter))
        one.add(letter)
    groups = [
        Group(
            key=name,
            count=one.count,
            profile=one.last.profile,
            topics=sorted(one.topics),
            reason=normal(one.last.reason),
            first_us=one.first_us,
            last_us=one.last.stored_us,
            example_seq=one.last.seq,
            example_reason=one.last.reason,
        )
        for name, one in sums.items()
    ]
    return sorted(groups, key=lambda group: (-group.count, group.first_us))
