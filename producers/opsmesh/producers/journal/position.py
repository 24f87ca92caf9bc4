"""How far the journal has been read: the cursor on disk, with the tracker's memory beside it.

Both are in one file, replaced as a whole, so that they always belong together. It is written only
after what they stand for has been emitted: a crash in between reads an entry twice, and the event's
id, derived from the entry's cursor, is the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.host import write_atomically
from opsmesh.producers.journal.reader import JournalError, Source, Unanswered

#: Seconds of the past that are read after a gap, at most: a lost cursor never floods the mesh.
REACH_BACK: Final = 3600.0


@dataclass(frozen=True)
class Position:
    """The last entry that was dealt with, and what the tracker remembered then."""

    cursor: str = ""
    memory: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Entries may be lost: the journal no longer holds the cursor. `first` is what it holds now."""

    kind: str
    cursor: str
    first: str
    from_us: int | None
    until_us: int


def load(path: Path) -> Position | None:
    """The stored position; None before the first one. A file that is none has an empty cursor."""
    try:
        stored = json.loads(path.read_bytes())
        return Position(str(stored["cursor"]), dict(stored["memory"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Position()


def store(path: Path, position: Position) -> None:
    """Keep the position, so that it survives a crash of the machine."""
    text = json.dumps({"cursor": position.cursor, "memory": position.memory})
    write_atomically(path, text.encode())


def find_gap(source: Source, cursor: str, *, now_us: int) -> Gap | None:
    """Why reading cannot go on right after `cursor`, or None when it can."""
    try:
        first = source.at_or_after(cursor) if cursor else ""
    except Unanswered:
        raise
    except JournalError:
        source.newest()  # raises, when it is journalctl that has trouble and not the cursor
        first, cursor = "", ""
    if cursor and _entry(first) == _entry(cursor):
        return None
    if not cursor:
        kind = "cursor_unreadable"
    elif not first:
        kind = "journal_empty"
    elif part(first, "s") == part(cursor, "s"):
        kind = "rotated_away"
    else:
        kind = "journal_replaced"
    return Gap(kind=kind, cursor=cursor, first=first, from_us=time_us(cursor), until_us=now_us)


def resume_at_us(gap: Gap) -> int:
    """From when to read after a gap: where the cursor stood, or REACH_BACK ago if that is later."""
    earliest = gap.until_us - int(REACH_BACK * 1e6)
    return earliest if gap.from_us is None else min(max(gap.from_us, earliest), gap.until_us)


def part(cursor: str, name: str) -> str:
    """One part of a cursor `s=…;i=…;b=…;m=…;t=…;x=…` (systemd's sd_journal_get_cursor)."""
    for item in cursor.split(";"):
        key, _, value = item.partition("=")
        if key == name:
            return value
    return ""


def time_us(cursor: str) -> int | None:
    """When the cursor's entry was written, in microseconds since the epoch."""
    try:
        return int(part(cursor, "t"), 16)
    except ValueError:
        return None


def _entry(cursor: str) -> tuple[str, str]:
    return part(cursor, "s"), part(cursor, "i")
