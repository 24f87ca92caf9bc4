"""Where an id stands in the archive: an index beside each segment, `<DD>-<number>-….ids`.

Eight bytes for each event, sorted: 36 bits of a hash of its id, then 28 bits for where its line
begins, in steps of 64 bytes. The one rule: it only says where to look; what is there, the line
says. A file that is missing, or is none, is made again from its segment.

The segment that is being written has its entries in memory, sorted when somebody asks.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from array import array
from binascii import crc32, crc_hqx
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import structlog

from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.evidence import lines, segments
from opsmesh.handlers.evidence.lines import Line
from opsmesh.handlers.evidence.segments import Segment
from opsmesh.router import logs

#: How the name of an index ends, where its segment's has `.jsonl`.
SUFFIX: Final = ".ids"
#: The first entry of every index: this format, and this machine's byte order.
_MAGIC: Final = 0x6F70736D_69647301
#: Bits for the place of a line, and what one step of it is in bytes (as a shift): a segment may
#: have 16 GiB.
_PLACE_BITS: Final = 28
_STEP: Final = 6
_PLACE: Final = (1 << _PLACE_BITS) - 1
#: Places that are looked at for one id, the newest first: an id that stands in so many is none.
MOST_PLACES: Final = 8
#: Bytes that are passed over at once on the way to a line.
_BLOCK: Final = 2**20

log = structlog.get_logger()
_quiet = logs.Throttle()


class _Named(msgspec.Struct, gc=False):
    id: str = ""


_named = msgspec.json.Decoder(_Named).decode

#: A segment's number, and in which 64 bytes of it the line begins.
Place = tuple[int, int]


class Ids:
    """The index of an archive that one process writes: `number` and `size` are of the segment that
    it goes on with (0: none)."""

    def __init__(self, folder: Path, *, number: int = 0, size: int = 0) -> None:
        self._folder = folder
        self._number = number
        #: Bytes of the segment that were there before us, and are not indexed yet.
        self._unread = size
        self._new = array("Q")
        self._runs: list[array[int]] = []
        #: Segments that ended: their entries, and the bytes that are not among them.
        self._ended: dict[int, tuple[array[int], int]] = {}

    def add(self, id: str, number: int, offset: int) -> None:
        """A line that begins there holds the event with this id."""
        if number != self._number:
            self._turn(number)
        raw = id.encode()
        hashed = crc32(raw) << 4 | crc_hqx(raw, 0) & 15  # as `_hash`, without the call
        self._new.append(hashed << _PLACE_BITS | offset >> _STEP & _PLACE)

    def write(self) -> None:
        """Put the index of every segment that has ended beside it; call when its lines are there.

        On OSError it is not kept: it is made again when somebody asks for it.
        """
        while self._ended:
            number, (entries, unread) = self._ended.popitem()
            found = [s for s in segments.listing(self._folder) if s.number == number]
            for segment in found:
                try:
                    _write(segment, [*entries, *_entries(segment, upto=unread)])
                except OSError as error:
                    log.warning("evidence.index_not_written", file=segment.name, error=str(error))

    def find(self, wanted: Mapping[str, str]) -> dict[str, list[Place]]:
        """Where events with these ids may be, the newest first; each id is looked for in the
        segments of its day and later, the empty one means all of them."""
        keys = {id: _hash(id) << _PLACE_BITS for id in wanted}
        found: dict[str, list[Place]] = defaultdict(list)
        earliest = min(wanted.values(), default="")
        for segment in reversed(segments.listing(self._folder)):
            if segment.day < earliest:
                continue
            asked = [id for id, day in wanted.items() if segment.day >= day]
            with _damage_is_told(segment):
                if segment.number == self._number:
                    for run in self._sorted(segment):
                        _look(run, segment, asked, keys, found)
                else:
                    with _Index(segment) as entries:
                        _look(entries, segment, asked, keys, found)
        return found

    def read(self, places: Iterable[Place]) -> Iterator[tuple[Place, Line]]:
        """The lines that begin at these places; each segment is read once, in its order."""
        by_number: dict[int, set[int]] = defaultdict(set)
        for number, step in places:
            by_number[number].add(step)
        for segment in segments.listing(self._folder):
            if steps := by_number.get(segment.number):
                with _damage_is_told(segment):
                    for step, line in _lines_at(segment, sorted(steps)):
                        yield (segment.number, step), line

    def _turn(self, number: int) -> None:
        if self._number:
            entries = self._new
            for run in self._runs:
                entries.extend(run)
            self._ended[self._number] = (entries, self._unread)
        self._number, self._unread = number, 0
        self._new, self._runs = array("Q"), []

    def _sorted(self, segment: Segment) -> list[array[int]]:
        """The entries of the segment that is being written, in a few sorted runs."""
        if self._unread:
            self._new.extend(_entries(segment, upto=self._unread))
            self._unread = 0
        if self._new:
            run, self._new = sorted(self._new), array("Q")
            # runs of like size become one: there are never more than some dozen
            while self._runs and len(self._runs[-1]) <= 2 * len(run):
                run = sorted([*self._runs.pop(), *run])
            self._runs.append(array("Q", run))
        return self._runs


@contextlib.contextmanager
def _damage_is_told(segment: Segment) -> Iterator[None]:
    """A segment that cannot be read is `verify`'s business; here its events are not found."""
    try:
        yield
    except (OSError, HandlersError) as error:
        if _quiet.allows(segment.name):
            log.warning("evidence.not_searched", file=segment.name, error=str(error))


def path(segment: Segment) -> Path:
    """Where a segment's index lies."""
    return segment.path.with_name(segment.path.name.removesuffix(".jsonl") + SUFFIX)


def _hash(id: str) -> int:
    raw = id.encode()
    return crc32(raw) << 4 | crc_hqx(raw, 0) & 15


def _look(
    entries: Sequence[int],
    segment: Segment,
    asked: Iterable[str],
    keys: Mapping[str, int],
    found: dict[str, list[Place]],
) -> None:
    for id in asked:
        key = keys[id]
        at = bisect_left(entries, key)
        while at < len(entries) and entries[at] >> _PLACE_BITS == key >> _PLACE_BITS:
            if len(found[id]) >= MOST_PLACES:
                break
            found[id].append((segment.number, entries[at] & _PLACE))
            at += 1


class _Index:
    """A segment's index as a sorted sequence, in memory only where it is looked at."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __enter__(self) -> Sequence[int]:
        for fresh in (False, True):
            if fresh:
                _write(self._segment, _entries(self._segment))
            try:
                with path(self._segment).open("rb") as file:
                    self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError):  # not there, or empty
                continue
            self._view = memoryview(self._map)
            if len(self._view) % 8 == 0:
                self._entries = self._view.cast("Q")
                if self._entries[0] == _MAGIC:
                    self._used = self._entries[1:]
                    return self._used
                self._entries.release()
            self._view.release()
            self._map.close()
        raise OSError(f"{path(self._segment)} cannot be read")

    def __exit__(self, *_: object) -> None:
        for view in (self._used, self._entries, self._view):
            view.release()
        self._map.close()


def _write(segment: Segment, entries: Iterable[int]) -> None:
    """Whole and on disk, or not there: only so may its length be believed."""
    target = path(segment)
    new = target.with_name(f".{target.name}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        array("Q", [_MAGIC, *sorted(entries)]).tofile(file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(target)


def _entries(segment: Segment, *, upto: int | None = None) -> Iterator[int]:
    """The entries of a segment, or of its first bytes, from its lines."""
    if upto == 0:
        return
    offset = 0
    with segments.opened(segment) as file:
        for raw in file:
            if upto is not None and offset >= upto:
                return
            line = lines.parse(raw)
            if line is not None and (id := id_of(line)):
                yield _hash(id) << _PLACE_BITS | offset >> _STEP & _PLACE
            offset += len(raw)


def id_of(line: Line) -> str:
    """The id that the event in a line was stored with; empty when it has none."""
    if line.kind == "note":
        return ""
    try:
        return _named(line.data).id
    except (ValueError, msgspec.DecodeError, RecursionError):
        return ""


def _lines_at(segment: Segment, steps: Sequence[int]) -> Iterator[tuple[int, Line]]:
    with segments.opened(segment) as file:
        at = 0
        for step in steps:
            # the byte before the 64 that are meant: if it ends a line, the next begins with them
            begin = max((step << _STEP) - 1, 0)
            if begin > at:
                at = _skip(file, at, begin)
                at += len(file.readline())
            while at >> _STEP <= step:
                raw = file.readline()
                if not raw:
                    return
                begin, at = at, at + len(raw)
                if begin >> _STEP == step and (line := lines.parse(raw)) is not None:
                    yield step, line


def _skip(file: BinaryIO, at: int, to: int) -> int:
    if file.seekable():
        return file.seek(to)
    while at < to:
        block = file.read(min(_BLOCK, to - at))
        if not block:
            break
        at += len(block)
    return at
