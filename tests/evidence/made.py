"""Archives made without a broker, and ways to change them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from opsmesh.handlers.evidence import lines, segments
from opsmesh.handlers.evidence.archive import Archive

#: 2026-11-23T09:00:00Z in microseconds.
MORNING = 1_795_424_400_000_000
DAY = 86_400_000_000


def event(number: int, topic: str = "a.b") -> bytes:
    """A small event."""
    return b'{"topic":"%s","n":%d}' % (topic.encode(), number)


def opened(folder: Path, *, segment_bytes: int = 2**20) -> Archive:
    """The archive, open for writing."""
    return Archive(folder, stream="EVENTS", segment_bytes=segment_bytes)


def archive(
    folder: Path, count: int, *, segment_bytes: int = 2**20, step_us: int = 1000
) -> list[Path]:
    """An archive of `count` events; its segments in order."""
    with opened(folder, segment_bytes=segment_bytes) as made:
        for seq in range(made.seq + 1, made.seq + count + 1):
            made.event(seq, MORNING + seq * step_us, event(seq))
        made.commit()
    return paths(folder)


def paths(folder: Path) -> list[Path]:
    """The segments' files in order."""
    return [segment.file for segment in segments.listing(folder)]


def change(path: Path, how: Callable[[list[bytes]], None]) -> None:
    """Rewrite a segment's lines."""
    raws = path.read_bytes().splitlines(keepends=True)
    how(raws)
    path.write_bytes(b"".join(raws))


def resealed(raw: bytes, old: bytes, new: bytes) -> bytes:
    """The line with another content and the hash that fits it."""
    changed = raw.replace(old, new)
    return changed.replace(raw[-67:-3], lines.digest(changed).encode())


def parsed(folder: Path) -> list[lines.Line]:
    """Every line of the archive."""
    found = []
    for segment in segments.listing(folder):
        with segments.opened(segment) as file:
            for raw in file:
                line = lines.parse(raw)
                assert line is not None
                found.append(line)
    return found
