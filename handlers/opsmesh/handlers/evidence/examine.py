"""What exactly is wrong with a segment whose chain does not hold.

Lines are put into the order of their hashes, wherever they stand. Where that chain ends early, it
begins again at the next line of the file; the sequences on both sides say whether lines are missing
between. What no chain reaches was inserted; what it reaches out of turn was moved.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from opsmesh.handlers.evidence import lines
from opsmesh.handlers.evidence.lines import Line
from opsmesh.handlers.evidence.report import Problem, ProblemKind

#: How far two lines that claim the same predecessor are followed to see which is the chain's.
LOOKAHEAD = 1000


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Where a chain stands. `hashes` are what the next line's `prev` may be, None for anything;
    `sound` is false when the line has been reported already; `unreadable` lines follow it."""

    hashes: tuple[str, ...] | None
    seq: int | None
    file: str = ""
    line: int = 0
    sound: bool = True
    unreadable: int = 0

    @property
    def text(self) -> str:
        """The hash that the next line should name."""
        return self.hashes[0] if self.hashes else ""


#: Before the first line of an archive.
START = End(hashes=(lines.NO_HASH,), seq=0)


def examine(
    file: str, raws: Sequence[bytes], before: End, *, missing_segments: Sequence[int] = ()
) -> tuple[list[Problem], End]:
    """The problems of one segment's lines, in their order, and where its chain ends."""
    found = _Segment(file, raws)
    found.walk(before, missing_segments)
    found.leftovers()
    return sorted(found.problems, key=lambda problem: problem.line), found.end


class _Segment:
    def __init__(self, file: str, raws: Sequence[bytes]) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.lines = [lines.parse(raw) for raw in raws]
        self.made = [lines.digest(raw) for raw in raws]
        self.end = START
        self._order: list[int] = []
        self._seen: set[int] = set()
        self._by_prev: dict[str, list[int]] = defaultdict(list)
        self._edited: set[int] = set()
        for index, line in enumerate(self.lines):
            if line is None:
                continue
            self._by_prev[line.prev].append(index)
            if self.made[index] != line.hash:
                self._edited.add(index)
                message = f"the line of sequence {line.seq} was changed: it does not fit its hash"
                self._add(index, "edited", message, line.hash, self.made[index])
        self._unreadable()

    def _add(
        self, index: int, kind: ProblemKind, message: str, expected: str = "", found: str = ""
    ) -> None:
        self.problems.append(
            Problem(
                file=self.file,
                line=index + 1,
                kind=kind,
                message=message,
                expected=expected,
                found=found,
            )
        )

    def _unreadable(self) -> None:
        """One problem for each run of lines that are none."""
        start = None
        for index, line in enumerate([*self.lines, Line("", 0, "", "", "note", b"", "")]):
            if line is None and start is None:
                start = index
            elif line is not None and start is not None:
                count = index - start
                what = "no line of an archive" if count == 1 else f"{count} lines of no archive"
                self._add(start, "unreadable", what)
                start = None

    def _hashes(self, index: int) -> tuple[str, ...]:
        """What the next line may name as `prev`: the hash that is written, or the one it needs."""
        line = self.lines[index]
        return (line.hash, self.made[index]) if line is not None else ()

    def _successor(self, hashes: Sequence[str] | None) -> int | None:
        if hashes is None:
            return self._next_in_file(-1)
        found = [
            index
            for hash_ in dict.fromkeys(hashes)
            for index in self._by_prev.get(hash_, ())
            if index not in self._seen
        ]
        if len(found) < 2:
            return found[0] if found else None
        # a forged line may claim the same predecessor: the chain goes on behind the true one
        return max(found, key=lambda index: (index not in self._edited, self._length(index)))

    def _length(self, index: int) -> int:
        seen: set[int] = set()
        current: int | None = index
        while current is not None and current not in seen and len(seen) < LOOKAHEAD:
            seen.add(current)
            nexts = [i for hash_ in self._hashes(current) for i in self._by_prev.get(hash_, ())]
            current = nexts[0] if nexts else None
        return len(seen)

    def _next_in_file(self, after: int) -> int | None:
        for index in range(after + 1, len(self.lines)):
            if self.lines[index] is not None and index not in self._seen:
                return index
        return None

    def walk(self, before: End, missing_segments: Sequence[int]) -> None:
        """Follow the chain from `before` to its end, past every break."""
        self.end = before
        index = -1
        while True:
            following = self._successor(self.end.hashes)
            linked = following is not None
            if following is None:
                following = self._next_in_file(index)
            if following is None:
                break
            self._check(index, following, linked=linked, missing=missing_segments)
            missing_segments = ()
            line = self.lines[following]
            assert line is not None  # noqa: S101 (only readable lines are ever chosen)
            index = following
            self._order.append(index)
            self._seen.add(index)
            self.end = End(
                hashes=self._hashes(index),
                seq=line.seq,
                file=self.file,
                line=index + 1,
                sound=index not in self._edited,
            )
        trailing = sum(line is None for line in self.lines[index + 1 :])
        self.end = msgspec.structs.replace(self.end, unreadable=trailing)

    def _check(self, index: int, following: int, *, linked: bool, missing: Sequence[int]) -> None:
        """Report what lies between two lines of the walk; `index` -1 is the end of the segment
        before."""
        line, before = self.lines[following], self.end
        assert line is not None  # noqa: S101 (only readable lines are ever chosen)
        unreadable = before.unreadable + sum(
            one is None for one in self.lines[index + 1 : following]
        )
        sound = before.sound and following not in self._edited and not unreadable
        follows = line.follows
        gap = 0 if follows is None or before.seq is None else follows - before.seq
        if linked and gap and sound:
            message = f"sequence {line.seq} follows {before.seq}, and no note says why"
            self._add(following, "edited", message, str((before.seq or 0) + 1), str(line.seq))
        if linked:
            return
        if missing and gap:
            names = ", ".join(map(str, missing))
            message = f"segment {names} before this file is missing: {_range(before.seq, gap)}"
            self._add(following, "missing segment", message, before.text, line.prev)
        elif gap > unreadable:
            message = f"lines before this one are missing: {_range(before.seq, gap)}"
            self._add(following, "removed", message, before.text, line.prev)
        elif sound and gap == 0 and before.line:
            self.problems.append(
                Problem(
                    file=before.file,
                    line=before.line,
                    kind="edited",
                    message=f"the line of sequence {before.seq} was changed and given a new hash: "
                    "the line after it knows another",
                    expected=line.prev,
                    found=before.text,
                )
            )
        elif sound:
            message = f"the chain of sequence {line.seq} does not begin with the line before it"
            self._add(following, "edited", message, before.text, line.prev)

    def leftovers(self) -> None:
        """Report lines that the chain never reached, and those that it reached out of turn."""
        for index, line in enumerate(self.lines):
            if line is not None and index not in self._seen and index not in self._edited:
                message = f"the line of sequence {line.seq} does not belong to the chain"
                self._add(index, "inserted", message)
        place = {index: number for number, index in enumerate(self._order)}
        kept = _longest_rising(self._order)
        for index in self._order:
            line = self.lines[index]
            if index in kept or line is None:
                continue
            number = place[index]
            after = self.lines[self._order[number - 1]] if number else None
            where = f"after sequence {after.seq}" if after else "at the beginning of the file"
            self._add(index, "reordered", f"the line of sequence {line.seq} belongs {where}")


def _range(seq: int | None, gap: int) -> str:
    first = (seq or 0) + 1
    return f"sequence {first}" if gap == 1 else f"sequences {first} to {first + gap - 1}"


def _longest_rising(values: Sequence[int]) -> set[int]:
    """A longest rising subsequence: what stands in its place when the rest was moved."""
    tops: list[int] = []
    before: dict[int, int | None] = {}
    for value in values:
        at = bisect_left(tops, value)
        before[value] = tops[at - 1] if at else None
        tops[at : at + 1] = [value]
    kept: set[int] = set()
    current = tops[-1] if tops else None
    while current is not None:
        kept.add(current)
        current = before[current]
    return kept
