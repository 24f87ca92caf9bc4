"""What has to be changed so that a tool is wired, or is no more. Reads files, and writes none.

A Change holds a file's whole content before and after, so that what is shown is what is done.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from opsmesh.producers.errors import NotOurs
from opsmesh.producers.install import lines
from opsmesh.producers.install.record import Entry, Record
from opsmesh.producers.wiring import OwnFile, Piece, SourceLine

State = Literal["wired", "stale", "edited", "incomplete", "not wired"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One file: None stands for a file that is not there. `entry` is what the record shall say."""

    path: Path
    before: bytes | None
    after: bytes | None
    mode: int | None
    entry: Entry
    root: bool = False
    #: The file that stood there is somebody else's: it is kept beside it.
    save: bool = False
    #: It takes away what an earlier installation wrote.
    undo: bool = False

    @property
    def needed(self) -> bool:
        """Whether the disk is not as it should be."""
        return self.before != self.after or (
            self.mode is not None and self.after is not None and mode_of(self.path) != self.mode
        )

    def diff(self) -> str:
        """The change as a unified diff."""
        old, new = (_shown(data) for data in (self.before, self.after))
        names = (
            str(self.path) if self.before is not None else "/dev/null",
            str(self.path) if self.after is not None else "/dev/null",
        )
        made = "".join(difflib.unified_diff(old, new, *names))
        if self.needed and not made:
            was = mode_of(self.path)
            return f"{self.path}: mode {was or 0:o} becomes {self.mode or 0:o}\n"
        return made


def to_install(
    tool: str, pieces: Sequence[Piece], record: Record | None, *, force: bool = False
) -> list[Change]:
    """The changes, one for each piece, and one for each that was installed and is no more wanted.
    NotOurs when a file is somebody else's, or was changed since, unless `force`."""
    known = record or Record(tool=tool)
    changes = [
        _file(piece, known, force=force)
        if isinstance(piece, OwnFile)
        else _line(tool, piece, known)
        for piece in pieces
    ]
    kept = {(change.entry.kind, change.entry.path) for change in changes}
    old = [entry for entry in known.entries if (entry.kind, entry.path) not in kept]
    return changes + [_undone(entry, force=force) for entry in old]


def to_uninstall(record: Record, *, force: bool = False) -> list[Change]:
    """The changes that undo what the record tells of, the last first."""
    return [_undone(entry, force=force) for entry in reversed(record.entries)]


def state(tool: str, pieces: Sequence[Piece], record: Record | None) -> State:
    """How far a tool is wired."""
    try:
        changes = to_install(tool, pieces, record)
    except NotOurs:
        return "edited"
    needed = [change for change in changes if change.needed]
    if not needed:
        return "wired" if changes else "not wired"
    missing = [change for change in needed if _is_missing(change)]
    if len(missing) == len(changes):
        return "incomplete" if record else "not wired"
    return "incomplete" if missing else "stale"


def _is_missing(change: Change) -> bool:
    if change.undo:
        return False
    if change.entry.kind == "file":
        return change.before is None
    return lines.find(change.before or b"", change.entry.mark.encode()) is None


def sha256(data: bytes) -> str:
    """How a record names a text."""
    return hashlib.sha256(data).hexdigest()


def mode_of(path: Path) -> int | None:
    """The permissions of what is there."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _file(piece: OwnFile, record: Record, *, force: bool) -> Change:
    before, after = _read(piece.path), piece.text.encode()
    entry = record.entry("file", piece.path)
    foreign = before is not None and before != after
    if foreign and entry is not None and before is not None:
        foreign = sha256(before) not in entry.sha256
    if foreign and not force:
        reason = "was changed since opsmesh wrote it" if entry else "is there and not from opsmesh"
        raise NotOurs(str(piece.path), reason)
    ours = [] if entry is None else entry.sha256
    made = replace(
        entry or Entry(kind="file", path=str(piece.path), created=before is None),
        sha256=list(dict.fromkeys([*ours[-1:], sha256(after)])),
    )
    return Change(
        path=piece.path,
        before=before,
        after=after,
        mode=piece.mode,
        entry=made,
        root=piece.root,
        save=foreign and not made.saved,
    )


def _line(tool: str, piece: SourceLine, record: Record) -> Change:
    before = _read(piece.path)
    after, unended = lines.put(before or b"", tool, piece)
    entry = record.entry("line", piece.path) or Entry(
        kind="line",
        path=str(piece.path),
        mark=lines.mark(tool, piece.comment).decode(),
        unended=unended,
        created=before is None,
    )
    # installed again after the line was deleted: what is true of the end now counts
    if before is not None and lines.find(before, entry.mark.encode()) is None:
        entry = replace(entry, unended=unended)
    return Change(path=piece.path, before=before, after=after, mode=None, entry=entry)


def _undone(entry: Entry, *, force: bool) -> Change:
    path = Path(entry.path)
    before = _read(path)
    after: bytes | None = None
    if before is None:
        pass
    elif entry.kind == "line":
        after = lines.take(before, entry.mark.encode(), unended=entry.unended)
        if entry.created and not after:
            after = None
    elif sha256(before) not in entry.sha256 and not force:
        raise NotOurs(entry.path, "was changed since opsmesh wrote it")
    if entry.kind == "file" and entry.saved:
        after = _read(Path(entry.saved))
    foreign = entry.kind == "file" and before is not None and sha256(before) not in entry.sha256
    return Change(
        path=path, before=before, after=after, mode=None, entry=entry, save=foreign, undo=True
    )


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _shown(data: bytes | None) -> list[str]:
    def ended() -> Iterator[str]:
        for line in (data or b"").decode("utf-8", "backslashreplace").splitlines():
            yield line + "\n"

    return list(ended())


def new_folders(path: Path) -> list[str]:
    """The folders above a path that are not there, the outermost first."""
    found: list[str] = []
    above = Path(os.path.realpath(path)).parent
    while not above.exists():
        found.insert(0, str(above))
        above = above.parent
    return found
