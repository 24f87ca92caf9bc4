"""The archive's one writer: lines are staged in memory, and `commit` puts them on disk.

The one rule: the file never holds half a commit. A write that fails is taken back, the lines stay
staged, and `commit` can be called again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog

from opsmesh.handlers.evidence import disk, keys, lines, seals, segments
from opsmesh.handlers.evidence.segments import Head, Segment
from opsmesh.router.errors import AlreadyRunning
from opsmesh.schemas import times

#: Times its size that a segment may grow before an event of a seal ends it, too.
GROWTH: Final = 16
#: How the line of a seal's event goes on behind its hash.
_SEAL_EVENT: Final = b'","event":{"topic":"%s",' % seals.TOPIC.encode()

log = structlog.get_logger()


@dataclass
class _Chunk:
    """Staged lines of one segment, and the position after them."""

    segment: Segment
    data: bytearray = field(default_factory=bytearray)
    seq: int = 0
    hash: str = lines.NO_HASH


class Archive:
    """An archive that is open for writing; AlreadyRunning when another process has it open.

    `seq` and `hash` are those of the last line, staged or not; `data` is the message in it, None
    when it is a note. It begins in segment `number` at byte `offset`; both are 0 until a line is
    staged. `closed` counts the segments that were closed, and can be sealed.
    """

    def __init__(self, folder: Path, *, stream: str, segment_bytes: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self.stream = stream
        self._limit = segment_bytes
        self._lock = _lock(folder)
        self._staged: deque[_Chunk] = deque()
        self._file = -1
        #: where the next line goes, unless it begins a new one; and where the last one lies
        self._segment: Segment | None = None
        self._last: Segment | None = None
        self._size = 0
        self._next_number = 1
        self.closed = 0
        self.seq, self.hash = 0, lines.NO_HASH
        self.data: bytes | None = None
        self.number = self.offset = 0
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self._on_disk: Segment | None = self._segment
        self._on_disk_size = self._size

    def _open(self) -> None:
        head = segments.read_head(self.folder)
        # Whoever seals meanwhile may be about to seal the last segment: then it gets no more lines
        with keys.locked(self.folder, wait=False) as free:
            self._find_end(head, free=free)
        self._compare(head)

    def _find_end(self, head: Head | None, *, free: bool) -> None:
        for segment in reversed(segments.listing(self.folder)):
            self._next_number = max(self._next_number, segment.number + 1)
            synced = head.size if head is not None and head.number == segment.number else 0
            tail = segments.tail(segment, synced=synced)
            ended = head is not None and head.closed and head.number == segment.number
            ended = ended or segment.seal.exists() or segment.compressed.exists()
            if tail.torn and not ended:
                kept = _set_aside(segment.path, tail)
                log.warning("evidence.torn", file=str(kept), bytes=len(tail.torn))
            if tail.line is None:
                if not ended:
                    segment.path.unlink()
                    self._next_number = segment.number
                continue
            self._last, self._size = segment, tail.size
            self.data = None if tail.line.kind == "note" else tail.line.data
            self.seq, self.hash = tail.line.seq, tail.line.hash
            if free and not ended:
                self._segment = segment
                flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
                self._file = os.open(segment.path, flags)
            break

    def _compare(self, head: Head | None) -> None:
        number = self._last.number if self._last else 0
        if head is None or (number, self._size) >= (head.number, head.size):
            return
        facts = {"kind": lines.TRUNCATED, "last_seq": self.seq, "head_seq": head.seq}
        log.error("evidence.truncated", **facts)
        self._next_number = max(self._next_number, head.number + 1)
        self.note({**facts, "head_hash": head.hash}, seq=self.seq)

    def event(self, seq: int, time_us: int, data: bytes, *, is_object: bool = False) -> None:
        """Stage the line of a stored message; a gap in the sequence becomes a note before it."""
        self._fill(seq)
        time = times.format_us(time_us)
        line, made = lines.of_event(self.stream, seq, time, self.hash, data, is_object=is_object)
        self._stage(line, seq, made, time[:10], by_day=True)
        self.data = data

    def duplicate(self, seq: int, time_us: int, facts: dict[str, Any]) -> None:
        """Stage a note in the place of a stored message that the archive holds already."""
        self._fill(seq)
        time = times.format_us(time_us)
        facts = {"kind": lines.DUPLICATE, **facts}
        line, made = lines.of_note(self.stream, seq, time, self.hash, facts)
        self._stage(line, seq, made, time[:10], by_day=True)
        self.data = None

    def note(self, facts: dict[str, Any], *, seq: int) -> None:
        """Stage a note; `seq` is the position in the stream after it."""
        now = times.format_us(times.now_us())
        line, made = lines.of_note(self.stream, seq, now, self.hash, facts)
        self._stage(line, seq, made, now[:10], by_day=False)
        self.data = None

    def _fill(self, seq: int) -> None:
        if seq > self.seq + 1:
            self.note({"kind": lines.MISSING, "from": self.seq + 1, "to": seq - 1}, seq=seq - 1)

    def _stage(self, line: bytes, seq: int, made: str, day: str, *, by_day: bool) -> None:
        segment = self._segment
        full = self._size > 0 and self._size + len(line) > self._limit
        ends = segment is None or full or (by_day and day != segment.day)
        if segment is None or (ends and not self._stays(line)):
            segment = self._segment = self._last = Segment(
                folder=self.folder,
                day=day,
                number=self._next_number,
                stream=self.stream,
                first_seq=seq,
            )
            self._next_number += 1
            self._size = 0
        if not self._staged or self._staged[-1].segment is not segment:
            self._staged.append(_Chunk(segment))
        chunk = self._staged[-1]
        chunk.data += line
        chunk.seq, chunk.hash = seq, made
        self.number, self.offset = segment.number, self._size
        self._size += len(line)
        self.seq, self.hash = seq, made

    def _stays(self, line: bytes) -> bool:
        """Whether the line goes where it falls: what tells of a seal must not be the cause of
        another one."""
        return _SEAL_EVENT in line[:512] and self._size < GROWTH * self._limit

    @property
    def end(self) -> tuple[int, int]:
        """Where the next line goes: the number of the last segment, and its size."""
        return (self._segment.number if self._segment else 0), self._size

    @property
    def uncommitted(self) -> bool:
        """Whether staged lines are not on disk yet."""
        return bool(self._staged)

    def commit(self) -> None:
        """Everything staged is on disk when this returns; on OSError the file is as before."""
        while self._staged:
            chunk = self._staged[0]
            if chunk.segment is not self._on_disk:
                self._create(chunk.segment)
            self._append(chunk.data)
            self._on_disk_size += len(chunk.data)
            head = Head(
                number=chunk.segment.number,
                size=self._on_disk_size,
                seq=chunk.seq,
                hash=chunk.hash,
            )
            self._staged.popleft()
            # The lines are safe; that their end could not be noted is no reason to write them again
            with contextlib.suppress(OSError):
                segments.write_head(self.folder, head)

    def end_segment(self) -> bool:
        """Close the open segment: the next line begins another one. False when none is open, or
        lines are staged; OSError when it cannot be noted, and then it stays open."""
        segment = self._on_disk
        if self._staged or self._segment is None or segment is None:
            return False
        # What may still be opened again must not be sealed, so the note comes first. It need not
        # survive a power cut, which ends whoever would seal as well.
        size = self._on_disk_size
        head = Head(number=segment.number, size=size, seq=self.seq, hash=self.hash, closed=True)
        segments.write_head(self.folder, head)
        self._segment, self._size = None, 0
        self.closed += 1
        return True

    def _create(self, segment: Segment) -> None:
        _make_folders(segment.path.parent, self.folder)
        new = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        disk.sync_folder(segment.path.parent)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._on_disk, self._on_disk_size = new, segment, 0
        self.closed += 1

    def _append(self, data: bytearray) -> None:
        try:
            with memoryview(data) as view:
                done = 0
                while done < len(view):
                    done += os.write(self._file, view[done:])
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._on_disk_size)
            raise

    def close(self) -> None:
        """Let go of the archive; what was staged and not committed is not in it."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).strip()
        os.close(descriptor)
        pid = int(holder) if holder.isdigit() else None
        raise AlreadyRunning(f"a sink for {folder}", pid) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, b"%d\n" % os.getpid())
    return descriptor


def _set_aside(path: Path, tail: segments.Tail) -> Path:
    """Move the torn end to a file beside the segment, never over one of an earlier crash."""
    kept = path.with_name(f"{path.name}.{times.now_us()}.torn")
    descriptor = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(tail.torn)
        file.flush()
        os.fsync(file.fileno())
    with path.open("r+b") as file:
        file.truncate(tail.size)
        os.fsync(file.fileno())
    return kept


def _make_folders(path: Path, top: Path) -> None:
    if path == top or path.is_dir():
        return
    _make_folders(path.parent, top)
    path.mkdir(mode=0o700, exist_ok=True)
    disk.sync_folder(path.parent)
