"""The files of the archive: their names, their order, and how the last one ends after a crash.

    evidence/<YYYY>/<MM>/<DD>-<number>-<stream>-<first seq>.jsonl

The day is that of its events in UTC, the number counts segments from 1 and is never used again, so
the order is that of the numbers even where a stream or a clock went back.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from opsmesh.handlers.errors import ArchiveDamaged
from opsmesh.handlers.evidence import lines
from opsmesh.handlers.evidence.lines import Line

#: Where the archive ended at the last commit: what shows that lines are missing at its end.
HEAD: Final = "head.json"
#: How far back from the end a crash can reach, in bytes: more than one commit and one line.
TAIL: Final = 32 * 2**20

_NAME: Final = re.compile(r"(\d{4})/(\d{2})/(\d{2})-(\d{6,})-([^/]+)-(\d{12,})\.jsonl")


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
        """Where it lies."""
        return self.folder / self.name


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the archive: its last segment's number, that one's size, and the last line."""

    number: int
    size: int
    seq: int
    hash: str


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """How a segment ends. `line` is None in an empty one; from `size` on it is torn."""

    size: int
    line: Line | None
    torn: bytes = b""


def listing(folder: Path) -> list[Segment]:
    """Every segment, in order."""
    found = []
    for path in folder.glob("[0-9]*/[0-9]*/*.jsonl"):
        named = _NAME.fullmatch(path.relative_to(folder).as_posix())
        if named:
            year, month, day, number, stream, first = named.groups()
            found.append(
                Segment(
                    folder=folder,
                    day=f"{year}-{month}-{day}",
                    number=int(number),
                    stream=stream,
                    first_seq=int(first),
                )
            )
    return sorted(found, key=lambda segment: segment.number)


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
