"""`verify`: is the archive what was written? Every problem with its file and line.

A segment whose chain holds is read once, fast; one that does not is given to `examine`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from pathlib import Path

from opsmesh.handlers.evidence import lines, segments
from opsmesh.handlers.evidence.examine import START, End, examine
from opsmesh.handlers.evidence.report import Note, Problem, Report, Torn
from opsmesh.handlers.evidence.segments import Head, Segment

#: Called now and then with the bytes that are done, and all bytes.
Progress = Callable[[int, int], None]


def verify(folder: Path, *, since: date | None = None, progress: Progress | None = None) -> Report:
    """Check every segment, or those from the UTC day `since` on.

    With `since`, what the first line says of the line before it is believed.
    """
    # before the listing: a sink at work only ever moves the end forward
    head = segments.read_head(folder)
    everything = segments.listing(folder)
    chosen = [s for s in everything if since is None or s.day >= since.isoformat()]
    sizes = {segment.number: segment.path.stat().st_size for segment in chosen}
    total = sum(sizes.values())
    partial = len(chosen) < len(everything)
    walk = _Walk(head, End(hashes=None, seq=None) if partial else START)
    number = chosen[0].number - 1 if partial and chosen else 0
    for segment in chosen:
        missing = range(number + 1, segment.number)
        walk.segment(segment, missing, last=segment is chosen[-1])
        number = segment.number
        walk.report.bytes += sizes[number]
        if progress is not None:
            progress(walk.report.bytes, total)
    walk.finish(everything[-1] if everything else None, since)
    return walk.report


class _Walk:
    def __init__(self, head: Head | None, end: End) -> None:
        self.report = Report(head=head is not None)
        self._head = head
        self._end = end
        self._head_seen = False

    def segment(self, segment: Segment, missing: range, *, last: bool) -> None:
        report = self.report
        report.segments += 1
        if self._fast(segment, last=last):
            return
        with segment.path.open("rb") as file:
            raws = list(file)
        if last and raws and not raws[-1].endswith(b"\n"):
            self._torn(segment, len(raws), raws.pop())
        report.lines += len(raws)
        problems, self._end = examine(segment.name, raws, self._end, missing_segments=missing)
        report.problems += problems
        for number, raw in enumerate(raws, 1):
            line = lines.parse(raw)
            if line is None:
                continue
            self._range(line.seq)
            if line.kind == "note":
                self._note(segment, number, line)
            if self._head is not None and self._head.hash in (line.hash, lines.digest(raw)):
                self._head_seen = True
        if self._end.text:
            report.last_hash = self._end.text

    def _fast(self, segment: Segment, *, last: bool) -> bool:
        """Whether the segment is whole; the report grows only if it is."""
        hashes, seq = self._end.hashes, self._end.seq
        prev = hashes[0].encode() if hashes else None
        head = self._head.hash.encode() if self._head is not None else b""
        head_seen, number, first = False, 0, None
        notes: list[tuple[int, lines.Line]] = []
        torn = b""
        with segment.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                found = lines.LINE.fullmatch(raw)
                if found is None:
                    if last and not raw.endswith(b"\n"):
                        torn = raw
                        number -= 1
                        break
                    return False
                stated = found[7]
                if hashlib.sha256(raw[: -lines.HASH_PART]).hexdigest().encode() != stated:
                    return False
                if found[4] != prev and prev is not None:
                    return False
                now = int(found[2])
                if found[5] == b"note":
                    line = lines.parse(raw)
                    if line is None or not (seq is None or line.follows in (None, seq)):
                        return False
                    notes.append((number, line))
                elif seq is not None and now != seq + 1:
                    return False
                if first is None:
                    first = now
                prev, seq = stated, now
                head_seen = head_seen or stated == head
        if torn:
            self._torn(segment, number + 1, torn)
        if not number or seq is None or first is None or prev is None:
            return True
        for at, line in notes:
            self._note(segment, at, line)
        self.report.lines += number
        self._range(first)
        self._range(seq)
        self._head_seen = self._head_seen or head_seen
        self.report.last_hash = prev.decode()
        self._end = End(hashes=(prev.decode(),), seq=seq, file=segment.name, line=number)
        return True

    def _range(self, seq: int) -> None:
        if self.report.first_seq is None:
            self.report.first_seq = seq
        self.report.last_seq = seq

    def _note(self, segment: Segment, number: int, line: lines.Line) -> None:
        note = Note(file=segment.name, line=number, seq=line.seq, facts=line.note)
        self.report.notes.append(note)

    def _torn(self, segment: Segment, number: int, raw: bytes) -> None:
        self.report.torn = Torn(file=segment.name, line=number, bytes=len(raw))

    def finish(self, last: Segment | None, since: date | None) -> None:
        """Compare with the end that was noted when the last line was written."""
        head, end = self._head, self._end
        if head is None or self._head_seen:
            return
        if since is not None and last is not None and last.day < since.isoformat():
            return  # the end lies before what was asked for
        size = last.path.stat().st_size if last is not None else 0
        shorter = last is None or (last.number, size) < (head.number, head.size)
        if shorter or not self.report.problems:
            message = (
                f"lines are missing at the end: {segments.HEAD} names sequence {head.seq}"
                if shorter
                else f"the last line is not the one that {segments.HEAD} names"
            )
            self.report.problems.append(
                Problem(
                    file=end.file or (last.name if last is not None else segments.HEAD),
                    line=max(end.line, 1),
                    kind="truncated" if shorter else "edited",
                    message=message,
                    expected=head.hash,
                    found=end.text,
                )
            )
