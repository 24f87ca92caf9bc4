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
    "damaged",  # a compressed file cannot be read on
    "extra segment",  # a file that does not belong to the archive
    "swapped segment",  # a file holds what another one held
    "resealed",  # a seal is not the one that was made
    "bad seal",  # a seal was edited, forged, or is another file's
    "wrong key",  # a seal under a key that was not in force, or is not trusted
    "missing seal",  # a segment that was sealed has no seal any more
    "broken keys",  # the chain of keys is not what was written
    "contradicted",  # the stream holds something else
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
    """The whole verification. `head` is whether the archive's noted end was there to compare,
    `sealed` the segments whose seal is accepted, `key` that of the newest of these, and `pinned`
    whether it follows from a key that is known from elsewhere; `compared` the messages of the
    stream that were compared, None when it was not asked, `pending` those not archived yet."""

    segments: int = 0
    sealed: int = 0
    lines: int = 0
    bytes: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    last_hash: str = ""
    head: bool = False
    key: str = ""
    pinned: bool = False
    last_seal: str = ""
    compared: int | None = None
    pending: int = 0
    problems: list[Problem] = []
    notes: list[Note] = []
    torn: Torn | None = None

    @property
    def intact(self) -> bool:
        """Whether every line is what was written, and none is missing."""
        return not self.problems
