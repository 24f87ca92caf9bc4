"""Topic patterns, as NATS matches subjects: `*` is one token, a last `>` one or more."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final

#: Tokens of a topic at most, as of the topic grammar.
MAX_TOKENS: Final = 6
_TOKEN: Final = re.compile(r"[a-z0-9_]+|\*")


def checked(pattern: str) -> str:
    """The pattern; ValueError for one that no topic can match."""
    tokens = pattern.split(".")
    if tokens[-1] == ">" and len(tokens) > 1:
        tokens = [*tokens[:-1], "*"]
    if not 2 <= len(tokens) <= MAX_TOKENS or not all(map(_TOKEN.fullmatch, tokens)):
        raise ValueError(
            f"{pattern!r} matches no topic: write 2 to {MAX_TOKENS} tokens of [a-z0-9_] joined by "
            "dots, where a token may be *, and the last one >"
        )
    return pattern


def expression(pattern: str) -> str:
    """The pattern as a regular expression that a whole topic matches."""
    tokens = [
        {"*": r"[^.]+", ">": r".+"}.get(token, re.escape(token)) for token in pattern.split(".")
    ]
    return r"\.".join(tokens)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(expression(pattern))


def topic_matches(pattern: str, topic: str) -> bool:
    """Whether the pattern covers the topic."""
    return _compiled(pattern).fullmatch(topic) is not None


def listens(patterns: Sequence[str], topic: str) -> bool:
    """Whether any pattern covers the topic."""
    return topic in patterns or any(topic_matches(pattern, topic) for pattern in patterns)


def overlap(one: str, other: str) -> bool:
    """Whether some topic is covered by both."""
    ones, others = one.split("."), other.split(".")
    for a, b in zip(ones, others, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(ones) == len(others)


def disjoint(patterns: Iterable[str]) -> tuple[str, ...]:
    """Patterns that cover at least as much, no two of them the same topic.

    The broker refuses a consumer whose filters overlap. Where two overlap and none covers the
    other, the narrowest pattern that covers both takes their place: the reader gets topics that it
    did not ask for, and must look.
    """
    found = list(dict.fromkeys(patterns))
    while pair := next((p for p in combinations(found, 2) if overlap(*p)), None):
        joined = _join(*pair)
        found = [pattern for pattern in found if pattern not in pair]
        if joined not in found:
            found.append(joined)
    return tuple(found)


def _join(one: str, other: str) -> str:
    ones, others = one.split("."), other.split(".")
    joined: list[str] = []
    for a, b in zip(ones, others, strict=False):
        if ">" in (a, b):
            return ".".join([*joined, ">"])
        joined.append(a if a == b else "*")
    return ".".join(joined)
