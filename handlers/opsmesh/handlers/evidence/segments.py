"""The files of the archive: their names, their order, how each is read, and how the last one ends
after a crash.

    evidence/<YYYY>/<MM>/<DD>-<number>-<stream>-<first seq>.jsonl      open, or not sealed yet
                                                           .seal.json  what was sealed (`seals`)
                                                           .jsonl.zst  sealed and compressed

The day is that of its events in UTC, the number counts segments from 1 and is never used again, so
the order is that of the numbers even where a stream or a clock went back. Read a segment through
`opened` alone: it may be compressed at any moment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from opsmesh.handlers.errors import ArchiveDamaged
from opsmesh.handlers.evidence import lines, zst
from opsmesh.handlers.evidence.lines import Line

#: Where the archive ended at the last commit: what shows that lines are missing at its end.
HEAD: Final = "head.json"
#: How far back from the end a crash can reach, in bytes: more than one commit and one line.
TAIL: Final = 32 * 2**20

#: What follows a segment's name: plain, compressed, and its seal.
PLAIN, COMPRESSED, SEAL = ".jsonl", ".jsonl.zst", ".seal.json"
_DATA: Final = frozenset((PLAIN, COMPRESSED))
_NAME: Final = re.compile(
    r"((\d{4})/(\d{2})/(\d{2})-(\d{6,})-([^/]+)-(\d{12,}))(\.jsonl|\.jsonl\.zst|\.seal\.json)"
)


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the archive."""

    folder: Path
    day: str
    number: int
    stream: str
    first_seq: int

    @property
    def name(self) -> str:
        """Its path below the folder, as people are told of it."""
        year, month, day = self.day.split("-")
        return f"{year}/{month}/{day}-{self.number:06d}-{self.stream}-{self.first_seq:012d}.jsonl"

    @property
    def path(self) -> Path:
        """Where it lies while it is plain text."""
        return self.folder / self.name

    @property
    def compressed(self) -> Path:
        """Where it lies once it is sealed."""
        return self.folder / f"{self.name}.zst"

    @property
    def seal(self) -> Path:
        """Where its seal lies."""
        return self.folder / (self.name.removesuffix(PLAIN) + SEAL)

    @property
    def file(self) -> Path:
        """The file that holds it now."""
        return self.compressed if self.compressed.exists() else self.path


class Head(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The end of the archive: its last segment's number, that one's size, and the last line;
    `closed`: the next line begins another segment."""

    number: int
    size: int
    seq: int
    hash: str
    closed: bool = False


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """How a segment ends. `line` is None in an empty one; from `size` on it is torn."""

    size: int
    line: Line | None
    torn: bytes = b""


def listing(folder: Path) -> list[Segment]:
    """Every segment, in order."""
    found = _named(folder)
    # a look at a folder may miss a file that takes its other name meanwhile, but not its seal
    return [s for s, endings in found if endings & _DATA or s.file.exists()]


def sealed(folder: Path) -> list[Segment]:
    """Every segment that has a seal, whether its lines are there or not, in order."""
    return [segment for segment, endings in _named(folder) if SEAL in endings]


def _named(folder: Path) -> list[tuple[Segment, set[str]]]:
    found: dict[str, tuple[Segment, set[str]]] = {}
    for path in folder.glob("[0-9]*/[0-9]*/[0-9]*"):
        named = _NAME.fullmatch(path.relative_to(folder).as_posix())
        if named is None:
            continue
        base, year, month, day, number, stream, first, ending = named.groups()
        segment = Segment(
            folder=folder,
            day=f"{year}-{month}-{day}",
            number=int(number),
            stream=stream,
            first_seq=int(first),
        )
        found.setdefault(base, (segment, set()))[1].add(ending)
    return sorted(found.values(), key=lambda one: (one[0].number, one[0].name))


def closed(folder: Path) -> list[Segment]:
    """The segments that no line will be added to, in order."""
    found, head = listing(folder), read_head(folder)
    last = found[-1].number if found else 0
    ended = head is not None and head.closed and head.number == last
    return found if ended else [segment for segment in found if segment.number < last]


def opened(segment: Segment, offset: int = 0) -> BinaryIO:
    """The segment's lines from a byte on, compressed or not, as a file to read on from there."""
    # The compressed file takes its name when it is whole, and the plain one goes after that.
    for _ in range(2):
        if segment.compressed.exists():
            file = zst.opened(segment.compressed)
            zst.skip(file, offset)
            return file
        try:
            file = segment.path.open("rb")
        except FileNotFoundError:
            continue
        file.seek(offset)
        return file
    raise FileNotFoundError(segment.path)


def size(segment: Segment) -> int:
    """Bytes of its lines."""
    while True:
        if segment.compressed.exists():
            return zst.size(segment.compressed)
        try:
            return segment.path.stat().st_size
        except FileNotFoundError:
            if not segment.compressed.exists():
                raise


def stored_size(segment: Segment) -> int:
    """Bytes that its lines take on disk."""
    while True:
        try:
            return segment.file.stat().st_size
        except FileNotFoundError:
            if not segment.compressed.exists():
                raise


def read_head(folder: Path) -> Head | None:
    """What was last noted of the archive's end; None when nothing readable was."""
    try:
        return msgspec.json.decode((folder / HEAD).read_bytes(), type=Head)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_head(folder: Path, head: Head) -> None:
    """Note the archive's end. Not synced: after a power cut it may be older than the archive, but
    never ahead of it, because lines are synced before."""
    new = folder / f".{HEAD}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(head) + b"\n")
    new.replace(folder / HEAD)


def tail(segment: Segment, *, synced: int = 0) -> Tail:
    """How the segment ends, from its last bytes alone; ArchiveDamaged when they hold no line.

    A crash leaves three traces: a last line without its end, pages that never reached the disk and
    read as zeros, and a last line that does not fit its hash. From the first trace on it is torn.
    The first `synced` bytes were on disk before, so no crash can have touched them: what is wrong
    there stays for `verify` to find.
    """
    if segment.compressed.exists():
        return _compressed_tail(segment)
    with segment.path.open("rb") as file:
        whole = file.seek(0, os.SEEK_END)
        start = max(0, whole - TAIL)
        file.seek(start)
        data = file.read(whole - start)
    # Inside the file the window begins somewhere in a line, which is not looked at.
    first = data.find(b"\n") + 1 if start else 0
    zeros = data.find(b"\0", max(first, synced - start))
    end = data.rfind(b"\n", first, len(data) if zeros < 0 else zeros) + 1
    while end > first:
        begin = data.rfind(b"\n", first, end - 1) + 1 or first
        line = lines.parse(data[begin:end])
        known = start + end <= synced
        if line is not None and (known or lines.digest(data[begin:end]) == line.hash):
            return Tail(size=start + end, line=line, torn=data[end:])
        end = begin
    if start:
        raise ArchiveDamaged(segment.name, f"no whole line in its last {len(data)} bytes")
    return Tail(size=0, line=None, torn=data)


def _compressed_tail(segment: Segment) -> Tail:
    size, raw = 0, b""
    with zst.opened(segment.compressed) as file:
        for raw in file:
            size += len(raw)
    line = lines.parse(raw)
    if line is None:
        raise ArchiveDamaged(segment.name, "its last line is none")
    return Tail(size=size, line=line)
