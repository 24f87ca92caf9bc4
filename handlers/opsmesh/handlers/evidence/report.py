"""What a verification found: problems with their place, and what is unusual but no problem."""

from __future__ import annotations

from typing import Literal

import msgspec

ProblemKind = Literal[
    "edited",  # a line is not what was written
    "removed",  # lines are missing
    "inserted",  # a line does not belong to the chain
    "reordered",  # a line stands in another place
    "unreadable",  # bytes that are no line
    "missing segment",  # a whole file is gone
    "truncated",  # the archive is shorter than it was
]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `line` counts from 1."""

    file: str
    line: int
    kind: ProblemKind
    message: str
    expected: str = ""
    found: str = ""


class Torn(msgspec.Struct, frozen=True, kw_only=True):
    """A last line without its end: the trace of a crash, or of a write that goes on now."""

    file: str
    line: int
    bytes: int


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive says of itself: messages or lines that it could not have."""

    file: str
    line: int
    seq: int
    facts: dict[str, object]


class Report(msgspec.Struct, kw_only=True):
    """The whole verification. `head` is whether the archive's noted end was there to compare."""

    segments: int = 0
    lines: int = 0
    bytes: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    last_hash: str = ""
    head: bool = False
    problems: list[Problem] = []
    notes: list[Note] = []
    torn: Torn | None = None

    @property
    def intact(self) -> bool:
        """Whether every line is what was written, and none is missing."""
        return not self.problems
