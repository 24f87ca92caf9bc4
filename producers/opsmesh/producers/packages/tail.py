"""Reading a log that grows and is rotated: from where it was left, each line once.

A place in a log is an offset and what stands before it. After a rotation the same bytes are found
in the file that the log became, whatever its name and whether it was renamed, copied or packed.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

#: Bytes before the place that are compared.
BEFORE: Final = 256
#: Rotated files that are looked through, the newest first: a log is rotated once a month or so.
ROTATED: Final = 4
#: Longest line; the rest of a longer one is passed over.
LONGEST: Final = 65_536


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

    def end(self) -> Place:
        """The place after the last whole line; the begin of a log that is not there yet."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                start = max(0, size - LONGEST)
                file.seek(start)
                tail = file.read(size - start)
                return _place(file, start + tail.rfind(b"\n") + 1)
        except OSError:
            return Place()

    def holds(self, place: Place) -> bool:
        """Whether the log can be read on from there: it was not rotated since."""
        try:
            with self.path.open("rb") as file:
                return _holds(file, place)
        except OSError:
            return False

    def files(self, place: Place) -> list[tuple[Path, Place]] | None:
        """What is to be read, and from where: the log, and before it what it was. None: nothing
        holds the place any more, and something may be lost."""
        if not self.path.exists():
            return []
        if self.holds(place):
            return [(self.path, place)]
        later: list[tuple[Path, Place]] = [(self.path, Place())]
        for path in self._rotated():
            try:
                with _open(path) as file:
                    if _holds(file, place):
                        return [(path, place), *later]
            except (OSError, EOFError):
                continue
            later.insert(0, (path, Place()))
        return None

    def _rotated(self) -> list[Path]:
        names = self.path.parent.glob(f"{self.path.name}?*")
        return sorted(names, key=_changed, reverse=True)[:ROTATED]


def read(path: Path, place: Place) -> Iterator[Line]:
    """The whole lines after a place. What is still being written is left for the next time."""
    with _open(path) as file:
        offset = place.offset
        file.seek(max(0, offset - BEFORE))
        before = file.read(min(BEFORE, offset))
        while line := file.readline(LONGEST):
            text = line
            if not line.endswith(b"\n"):
                line += _rest(file)
                if not line.endswith(b"\n"):
                    return
            offset += len(line)
            before = (before + line)[-BEFORE:]
            yield Line(text.rstrip(b"\r\n").decode("utf-8", "replace"), _digest(offset, before))


def _rest(file: BinaryIO) -> bytes:
    parts = []
    while part := file.readline(LONGEST):
        parts.append(part)
        if part.endswith(b"\n"):
            break
    return b"".join(parts)


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


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
