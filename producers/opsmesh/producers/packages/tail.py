"""Reading a log that grows and is rotated: from where it was left, each line once.

A place in a log is an offset and what stands before it. After a rotation the same bytes are found
in the file that the log became, whatever its name and whether it was renamed, copied or packed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

#: Bytes before the place that are compared.
BEFORE: Final = 256
#: Rotated files that are looked through, the newest first: logrotate keeps twelve of apt's.
ROTATED: Final = 24
#: Longest line; the rest of a longer one is passed over. apt writes what it upgrades into one line:
#: 60 bytes a package.
LONGEST: Final = 1 << 20
#: Bytes of lines that are read at once.
BATCH: Final = 1 << 20
#: How far back the begin of a transaction that is under way is looked for.
RECENT: Final = 1 << 18
#: How often the rotated files are listed again when one of them went away while it was looked at.
TRIES: Final = 5
#: What logrotate appends: `.1`, `.2.gz`, `-20261101`.
_ROTATED: Final = re.compile(r"[.-]\d[\d.-]*(?:\.gz)?")
#: What a file that cannot be read raises, or one that gzip has not finished yet.
UNREADABLE: Final = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Place:
    """Everything up to `offset` is dealt with; `before` is the digest of the bytes before it."""

    offset: int = 0
    before: str = ""

    @classmethod
    def restore(cls, stored: Any) -> Place | None:
        """What `dump` gave; None for anything else."""
        try:
            return cls(offset=int(stored["offset"]), before=str(stored["before"]))
        except (KeyError, TypeError, ValueError):
            return None

    def dump(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Line:
    """One line without its end, and the place after it."""

    text: str
    place: Place


class Log:
    """One log, with what it was before it was rotated."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def watched(self) -> tuple[Path, Path]:
        """What to watch: a package manager that runs while its log is renamed writes on there."""
        return self.path, self.path.with_name(f"{self.path.name}.1")

    def end(self) -> Place:
        """The place after the last whole line, also of what the log was; the begin of a log that
        has never been. OSError for one that may not be read."""
        return self._last(LONGEST)[0]

    def recent(self) -> list[tuple[Path, Place]]:
        """What to read for the log's last lines; as `files`. OSError as `end`."""
        end, start = self._last(RECENT)
        return [(path, start) for path, _ in self.files(end) or ()][:1] if end.offset else []

    def present(self) -> list[tuple[Path, Place]]:
        """The log alone, from its begin, where it is; as `files`."""
        return [(self.path, Place())] if self.path.exists() else []

    def everything(self) -> list[tuple[Path, Place]]:
        """All that there is, the oldest first; as `files`."""
        return [*((path, Place()) for path in reversed(self._rotated())), *self.present()]

    def files(self, place: Place) -> list[tuple[Path, Place]] | None:
        """What is to be read, and from where: the log, and before it what it was. None: nothing
        holds the place any more, and something may be lost."""
        for _ in range(TRIES):
            try:
                return self._files(place)
            except FileNotFoundError:
                continue  # rotated this very moment
        return self._files(place, patient=True)

    def _files(self, place: Place, *, patient: bool = False) -> list[tuple[Path, Place]] | None:
        if not place.offset:  # nothing has ever been here: all of it is new
            return self.everything()
        later: list[tuple[Path, Place]] = []
        if self.path.exists():
            with self.path.open("rb") as file:
                if _holds(file, place):
                    return [(self.path, place)]
            later = [(self.path, Place())]
        for path in self._rotated():
            try:
                with _open(path) as file:
                    if _holds(file, place):
                        return [(path, place), *later]
            except FileNotFoundError:
                if patient:
                    continue
                raise
            except UNREADABLE:
                continue
            later.insert(0, (path, Place()))
        return None if later else []

    def _last(self, back: int) -> tuple[Place, Place]:
        for path in (self.path, *self._rotated()):
            try:
                if (found := _end(path, back))[0].offset:
                    return found
            except FileNotFoundError:
                continue
            except UNREADABLE:
                if path == self.path:
                    raise
        return Place(), Place()

    def _rotated(self) -> list[Path]:
        name = self.path.name
        try:
            found = [
                path
                for path in self.path.parent.iterdir()
                if path.name.startswith(name) and _ROTATED.fullmatch(path.name, len(name))
            ]
        except OSError:
            return []
        return sorted(found, key=_changed, reverse=True)[:ROTATED]


class Rotated(OSError):
    """The file does not hold the place that it was found to hold: ask for the files again."""


def read(path: Path, place: Place) -> Iterator[Line]:
    """The whole lines after a place. What is still being written is left for the next time.
    Rotated where the log was copied, emptied and written on while we read."""
    with _open(path) as file:
        while lines := _batch(file, place):
            end = lines[-1].place
            packed = isinstance(file, gzip.GzipFile)  # nobody writes to it any more
            if not packed and not (_still(file, place) and _still(file, end)):
                raise Rotated(f"{path} was rotated")
            yield from lines
            place = end


def _batch(file: BinaryIO, place: Place) -> list[Line]:
    """Some lines after a place: none of them is told before it is known that they are its."""
    lines: list[Line] = []
    offset = place.offset
    file.seek(max(0, offset - BEFORE))
    before = file.read(min(BEFORE, offset))
    while offset - place.offset < BATCH and (line := file.readline(LONGEST)):
        length, last = len(line), line[-BEFORE:]
        while not last.endswith(b"\n"):  # a longer one: nothing of the rest is kept
            if not (more := file.readline(LONGEST)):
                return lines
            length, last = length + len(more), (last + more)[-BEFORE:]
        offset += length
        before = (before + last)[-BEFORE:]
        text = line.rstrip(b"\r\n").decode("utf-8", "replace")
        lines.append(Line(text, _digest(offset, before)))
    return lines


def _still(file: BinaryIO, place: Place) -> bool:
    """Whether the place is there now, whatever a buffer says."""
    start = max(0, place.offset - BEFORE)
    before = os.pread(file.fileno(), place.offset - start, start)
    return not place.offset or _digest(place.offset, before) == place


def _place(file: BinaryIO, offset: int) -> Place:
    file.seek(max(0, offset - BEFORE))
    return _digest(offset, file.read(min(BEFORE, offset)))


def _digest(offset: int, before: bytes) -> Place:
    return Place(offset, hashlib.sha256(before).hexdigest()[:32])


def _holds(file: BinaryIO, place: Place) -> bool:
    if not place.offset:
        return True
    return _place(file, place.offset) == place


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _end(path: Path, back: int = LONGEST) -> tuple[Place, Place]:
    """The place after the last whole line, and one at most `back` bytes before it."""
    with _open(path) as file:
        size = file.seek(0, 2) if path.suffix != ".gz" else _length(file)
        start = max(0, size - back)
        file.seek(start)
        tail = file.read(size - start)
        last = tail.rfind(b"\n") + 1
        first = tail.find(b"\n") + 1 if start else 0
        return _place(file, start + last), _place(file, start + min(first, last))


def _length(file: BinaryIO) -> int:
    """Of what is packed; gzip cannot seek from the end."""
    size = 0
    while part := file.read(LONGEST):
        size += len(part)
    return size


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
