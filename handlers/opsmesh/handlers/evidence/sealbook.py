"""The seals of one archive during a verification: which are accepted, and which are missing.

Its problems go into the report as they are found; `manifest` gives what an accepted seal says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opsmesh.handlers.evidence import keychain, seals, segments
from opsmesh.handlers.evidence.authority import Authority
from opsmesh.handlers.evidence.keychain import BrokenChain, Entry
from opsmesh.handlers.evidence.keys import Pin
from opsmesh.handlers.evidence.report import Problem, ProblemKind, Report
from opsmesh.handlers.evidence.seals import Manifest, Seal
from opsmesh.handlers.evidence.segments import Segment


class SealBook:
    """Every seal of the folder, read once."""

    def __init__(self, folder: Path, report: Report, *, key: str | None, pin: Pin | None) -> None:
        self._report = report
        self._pin = pin
        self._segments = segments.sealed(folder)
        self._seals: dict[int, Seal] = {}
        self._bad: set[int] = set()
        entries = self._entries(folder)
        self.authority = Authority(entries, key)
        if entries and key is not None and not self.authority.trusted:
            message = f"the trusted key {key[:16]}… is not among the archive's keys"
            found = entries[-1].statement.key
            self._add(keychain.NAME, len(entries), "wrong key", message, key, found)
        if pin is not None and entries and entries[0].statement.archive != pin.archive:
            message = "this is another archive than the one that was here"
            found = entries[0].statement.archive
            self._add(keychain.NAME, 1, "extra segment", message, pin.archive, found)
        for segment in self._segments:
            self._read(segment)
        self._numbers = sorted({s.number for s in self._segments})
        #: up to here every segment has been sealed
        self._sealed_to = max(
            0,
            *self._numbers,
            *(entry.statement.from_segment - 1 for entry in entries),
            pin.segment if pin is not None else 0,
        )
        self._check_rotations(entries)

    def _entries(self, folder: Path) -> list[Entry]:
        try:
            entries = keychain.read(folder)
        except BrokenChain as error:
            self._add(keychain.NAME, error.line, "broken keys", error.reason)
            # those before the break still hold
            raws = (folder / keychain.NAME).read_bytes().splitlines(keepends=True)
            return keychain.check(raws[: error.line - 1])
        if not entries and (self._segments or self._pin is not None):
            message = "the archive was sealed, and the list of its keys is gone"
            self._add(keychain.NAME, 1, "broken keys", message)
        return entries

    def _check_rotations(self, entries: Sequence[Entry]) -> None:
        known = {seal.hash: number for number, seal in self._seals.items()}
        for line, entry in enumerate(entries, 1):
            said = entry.statement
            before = [n for n in self._numbers if n < said.from_segment]
            if said.after == keychain.NONE or said.after in known or set(before) & self._bad:
                continue
            message = "the newest seal before this key is not the one that was made"
            file = self._name(before[-1]) if before else keychain.NAME
            at = 1 if before else line
            self._add(file, at, "resealed", message, said.after)

    def _read(self, segment: Segment) -> None:
        number = segment.number
        try:
            seal = seals.read(segment)
        except ValueError as error:
            self._bad.add(number)
            self._add(_file(segment), 1, "bad seal", str(error))
            return
        if seal is None:  # gone since the folder was listed
            return
        if number in self._seals:
            message = f"another seal has the number {number}"
            self._add(_file(segment), 1, "extra segment", message)
            return
        fault = self.authority.fault(seal, segment)
        if fault is not None:
            self._bad.add(number)
            self._add(_file(segment), 1, *fault)
            return
        self._seals[number] = seal

    def without_lines(self, existing: Sequence[Segment]) -> list[Segment]:
        """The segments that have a seal and no file."""
        there = {segment.name for segment in existing}
        return [s for s in self._segments if s.name not in there and not s.file.exists()]

    def manifest(self, segment: Segment) -> Manifest | None:
        """What the segment's seal says, if it has one that is accepted."""
        number = segment.number
        seal = self._seals.get(number)
        if seal is None or seal.manifest.file != segment.name:
            if number <= self._sealed_to and number not in self._bad:
                message = "the segment has no seal, though later ones were sealed"
                if self._pin is not None and number == self._pin.segment:
                    message = "the segment was sealed, and its seal is gone"
                self._add(segment.name, 1, "missing seal", message)
                self._bad.add(number)
            return None
        self._report.sealed += 1
        self._report.key = seal.manifest.key
        self._report.last_seal = seal.hash
        self._check_previous(number, seal)
        return seal.manifest

    def _check_previous(self, number: int, seal: Seal) -> None:
        # a segment or a seal that is missing between the two is told of by itself
        known, previous = self._seals.get(number - 1), seal.manifest.previous
        if known is not None and known.hash != previous:
            message = f"the seal of segment {number} knows another seal of this segment"
            self._add(self._name(number - 1), 1, "resealed", message, previous, known.hash)

    def finish(self) -> None:
        """Compare the newest seal with the one that is remembered."""
        pin = self._pin
        if pin is None or not pin.segment:
            return
        seal = self._seals.get(pin.segment)
        if seal is not None and seal.hash != pin.seal:
            message = "this is not the seal that was made of the segment"
            self._add(self._name(pin.segment), 1, "resealed", message, pin.seal, seal.hash)
        elif seal is None and pin.segment not in self._bad:
            message = f"segment {pin.segment} was sealed, and is gone with its seal"
            last = self._segments[-1].name if self._segments else segments.HEAD
            self._add(last, 1, "missing segment", message, pin.seal)

    def _name(self, number: int) -> str:
        return next(_file(segment) for segment in self._segments if segment.number == number)

    def _add(
        self,
        file: str,
        line: int,
        kind: ProblemKind,
        message: str,
        expected: str = "",
        found: str = "",
    ) -> None:
        self._report.problems.append(
            Problem(
                file=file, line=line, kind=kind, message=message, expected=expected, found=found
            )
        )


def _file(segment: Segment) -> str:
    return segment.seal.relative_to(segment.folder).as_posix()
