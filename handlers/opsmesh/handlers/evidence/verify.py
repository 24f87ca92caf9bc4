"""`verify`: is the archive what was written? Every problem with its file and line.

A segment whose chain holds is read once, fast; one that does not is given to `examine`. What a seal
says of its segment is believed when `authority` accepts the seal, and then it counts more than the
lines: they may have been written anew, hashes and all.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

from opsmesh.handlers.errors import SegmentDamaged
from opsmesh.handlers.evidence import lines, segments
from opsmesh.handlers.evidence.examine import START, End, examine
from opsmesh.handlers.evidence.keys import Pin
from opsmesh.handlers.evidence.report import Note, Problem, ProblemKind, Report, Torn
from opsmesh.handlers.evidence.scan import Scan, scan
from opsmesh.handlers.evidence.sealbook import SealBook
from opsmesh.handlers.evidence.seals import Manifest, content
from opsmesh.handlers.evidence.segments import Head, Segment

#: Bytes that are compared at once.
BLOCK = 128 * 1024
#: Called now and then with the bytes on disk that are done, and all of them.
Progress = Callable[[int, int], None]


def verify(
    folder: Path,
    *,
    since: date | None = None,
    progress: Progress | None = None,
    key: str | None = None,
    pin: Pin | None = None,
) -> Report:
    """Check every segment, or those from the UTC day `since` on.

    With `since`, what the first line says of the line before it is believed. `key` is the
    fingerprint of a key that is trusted: without one the archive's own word is taken for its keys.
    `pin` is what is remembered of the archive's newest seal.
    """
    # before the listing: a sink at work only ever moves the end forward
    head = segments.read_head(folder)
    everything = segments.listing(folder)
    chosen = [s for s in everything if since is None or s.day >= since.isoformat()]
    sizes = {segment.name: segments.stored_size(segment) for segment in chosen}
    total = sum(sizes.values())
    partial = len(chosen) < len(everything)
    walk = _Walk(folder, head, End(hashes=None, seq=None) if partial else START, key, pin)
    number = chosen[0].number - 1 if partial and chosen else 0
    gone = walk.book.without_lines(everything)
    done = 0
    for segment in chosen:
        for lost in [s for s in gone if number < s.number < segment.number]:
            walk.lost(lost)
            number = lost.number
        if segment.number <= number:
            walk.surplus(segment, number)
            continue
        missing = range(number + 1, segment.number)
        walk.segment(segment, missing, last=segment is everything[-1])
        number = segment.number
        done += sizes[segment.name]
        if progress is not None:
            progress(done, total)
    for lost in [s for s in gone if s.number > number]:
        walk.lost(lost)
    walk.finish(everything[-1] if everything else None, since)
    return walk.report


class _Walk:
    def __init__(
        self, folder: Path, head: Head | None, end: End, key: str | None, pin: Pin | None
    ) -> None:
        self.report = Report(head=head is not None, pinned=key is not None)
        self.book = SealBook(folder, self.report, key=key, pin=pin)
        self._head = head
        self._end = end
        self._head_seen = False

    def segment(self, segment: Segment, missing: range, *, last: bool) -> None:
        """Check one file, and what lies between it and the one before."""
        self.report.segments += 1
        manifest = self.book.manifest(segment)
        asked = self._head.hash.encode() if self._head is not None else b""
        try:
            with segments.opened(segment) as file:
                open_end = last and manifest is None
                found = scan(file, may_be_torn=open_end, root=manifest is not None, asked=asked)
        except SegmentDamaged:
            found = None
        if found is not None and found.torn:
            self._torn(segment, found.lines + 1, found.torn)
        if found is not None and manifest is not None and content(manifest) != found.content:
            self._unlike(segment, found, manifest)
        elif found is not None and self._links(found):
            self._take(segment, found)
        else:
            self._examine(segment, missing, manifest, last=last)
        if segment.path.exists() and segment.compressed.exists() and not _alike(segment):
            message = "a plain file lies beside the compressed one, and holds something else"
            self._add(segment.name, 1, "extra segment", message)

    def _links(self, found: Scan) -> bool:
        if not found.lines:
            return True
        hashes, seq = self._end.hashes, self._end.seq
        known = hashes is None or hashes[0] == found.prev
        return known and (seq is None or found.follows in (None, seq))

    def _take(self, segment: Segment, found: Scan) -> None:
        """A segment that is as it was written."""
        report = self.report
        for at, line in found.notes:
            self._note(segment, at, line)
        report.bytes += found.size
        if not found.lines:
            return
        report.lines += found.lines
        self._range(found.first_seq)
        self._range(found.last_seq)
        self._head_seen = self._head_seen or found.holds
        report.last_hash = found.last
        self._end = End(
            hashes=(found.last,), seq=found.last_seq, file=segment.name, line=found.lines
        )

    def _unlike(self, segment: Segment, found: Scan, manifest: Manifest) -> None:
        """A segment whose lines are a chain, but not the one that was sealed."""
        name, sealed = segment.name, f"it was sealed on {manifest.sealed_at[:16]}"
        held = f"{manifest.first_seq} to {manifest.last_seq}"
        if found.lines and found.prev != manifest.prev and found.first_seq != manifest.first_seq:
            message = f"{sealed} with sequences {held}, and holds {found.first_seq} to "
            message += f"{found.last_seq}: another file's lines"
            self._add(name, 1, "swapped segment", message, manifest.prev, found.prev)
        elif found.lines < manifest.lines:
            message = f"{manifest.lines - found.lines} of {manifest.lines} lines are missing: "
            message += f"{sealed} with sequences {held}"
            at = found.lines + 1 if found.prev == manifest.prev else 1
            self._add(name, at, "truncated", message, manifest.last, found.last)
        elif found.lines > manifest.lines:
            message = f"{found.lines - manifest.lines} lines too many: {sealed} with "
            message += f"{manifest.lines} lines"
            self._add(name, manifest.lines + 1, "inserted", message, manifest.last, found.last)
        else:
            message = "the lines were written anew, with hashes that fit: "
            message += f"{sealed} with another last hash"
            self._add(name, found.lines, "edited", message, manifest.last, found.last)
        self._take(segment, found)
        self._after(segment, manifest)

    def _examine(
        self, segment: Segment, missing: range, manifest: Manifest | None, *, last: bool
    ) -> None:
        raws: list[bytes] = []
        damage = ""
        try:
            with segments.opened(segment) as file:
                raws += file
        except SegmentDamaged as error:
            damage = error.reason
        if raws and not raws[-1].endswith(b"\n"):
            if damage:
                raws.pop()
            elif last and manifest is None:
                self._torn(segment, len(raws), raws.pop())
        report = self.report
        report.lines += len(raws)
        report.bytes += sum(map(len, raws))
        problems, end = examine(segment.name, raws, self._end, missing_segments=missing)
        self._end = end
        if damage:
            message = f"the compressed file cannot be read from here on: {damage}"
            problems.append(_problem(_shown(segment), len(raws) + 1, "damaged", message))
        elif manifest is not None and manifest.last not in (end.hashes or ()):
            message = f"the last lines are missing: it was sealed on {manifest.sealed_at[:16]} "
            message += f"with {manifest.lines} lines up to sequence {manifest.last_seq}"
            place = len(raws) + 1
            problems.append(
                _problem(segment.name, place, "truncated", message, manifest.last, end.text)
            )
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
        if end.text:
            report.last_hash = end.text
        if manifest is not None:
            self._after(segment, manifest)

    def _after(self, segment: Segment, manifest: Manifest) -> None:
        """Go on behind a sealed segment that is not what it was: the seal says where it ended, and
        what was written anew may go on in the next file."""
        self._end = End(
            hashes=(manifest.last, *(self._end.hashes or ())),
            seq=manifest.last_seq if self._end.seq != manifest.last_seq else self._end.seq,
            file=segment.name,
            line=manifest.lines,
            sound=False,
        )
        if self._head is not None and self._head.hash == manifest.last:
            self._head_seen = True

    def lost(self, segment: Segment) -> None:
        """A seal whose lines are gone."""
        manifest = self.book.manifest(segment)
        if manifest is None:
            return
        message = f"the file is gone: it was sealed on {manifest.sealed_at[:16]} with sequences "
        message += f"{manifest.first_seq} to {manifest.last_seq}"
        self._add(segment.name, 1, "missing segment", message, manifest.root)
        self._end = End(
            hashes=(manifest.last,),
            seq=manifest.last_seq,
            file=segment.name,
            line=manifest.lines,
            sound=False,
        )

    def surplus(self, segment: Segment, number: int) -> None:
        """A file whose number another file has."""
        message = f"another file has the number {number}: this one does not belong to the archive"
        self._add(segment.name, 1, "extra segment", message)

    def _add(
        self,
        file: str,
        line: int,
        kind: ProblemKind,
        message: str,
        expected: str = "",
        found: str = "",
    ) -> None:
        self.report.problems.append(_problem(file, line, kind, message, expected, found))

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
        """Compare with the ends that were noted when the last line was written, and sealed."""
        self.book.finish()
        head, end = self._head, self._end
        if head is None or self._head_seen:
            return
        if since is not None and last is not None and last.day < since.isoformat():
            return  # the end lies before what was asked for
        size = self.report_size(last)
        shorter = last is None or (last.number, size) < (head.number, head.size)
        if shorter or not self.report.problems:
            message = (
                f"lines are missing at the end: {segments.HEAD} names sequence {head.seq}"
                if shorter
                else f"the last line is not the one that {segments.HEAD} names"
            )
            self._add(
                end.file or (last.name if last is not None else segments.HEAD),
                max(end.line, 1),
                "truncated" if shorter else "edited",
                message,
                head.hash,
                end.text,
            )

    def report_size(self, last: Segment | None) -> int:
        """Bytes of the last segment; 0 when it cannot be known."""
        try:
            return segments.size(last) if last is not None else 0
        except SegmentDamaged:
            return 0


def _alike(segment: Segment) -> bool:
    """Whether the plain file, which goes when its compressed form is whole, holds the same."""
    try:
        with segment.path.open("rb") as plain, segments.opened(segment) as packed:
            while block := plain.read(BLOCK):
                if packed.read(len(block)) != block:
                    return False
            return not packed.read(1)
    except (FileNotFoundError, SegmentDamaged):  # it has just gone; or it is told already
        return True


def _shown(segment: Segment) -> str:
    return segment.file.relative_to(segment.folder).as_posix()


def _problem(
    file: str, line: int, kind: ProblemKind, message: str, expected: str = "", found: str = ""
) -> Problem:
    return Problem(file=file, line=line, kind=kind, message=message, expected=expected, found=found)
