"""What has to be changed so that a tool is wired, or is no more. Reads files, and writes none.

A Change holds a file's whole content before and after, so that what is shown is what is done.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from opsmesh.producers.errors import BrokenWiring, NotOurs, Unusable
from opsmesh.producers.install import edits, lines, show
from opsmesh.producers.install.record import Entry, Kind, Record
from opsmesh.producers.wiring import EditedFile, OwnFile, Piece, SourceLine

#: Ends the name of a copy of what was there.
SAVED: Final = ".before-opsmesh"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One file: None stands for a file that is not there. `entry` is what the record shall say."""

    path: Path
    before: bytes | None
    after: bytes | None
    mode: int | None
    entry: Entry
    root: bool = False
    #: Where what stands there is copied to first, for it is not ours.
    keep: Path | None = None
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
        made = show.diff(str(self.path), self.before, self.after)
        if self.needed and not made:
            was = mode_of(self.path)
            return f"{self.path}: mode {was or 0:o} becomes {self.mode or 0:o}\n"
        return made


def checked(tool: str, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces; BrokenWiring when they cannot all be put in, found again and taken out."""
    for piece in pieces:
        if not piece.path.is_absolute():
            raise BrokenWiring(tool, f"{piece.path} is no absolute path")
        if isinstance(piece, SourceLine) and ("\n" in piece.line or not piece.line.strip()):
            raise BrokenWiring(tool, f"{piece.line!r} is not one line")
    named = [str(piece.path) for piece in pieces]
    if twice := {path for path in named if named.count(path) > 1}:
        raise BrokenWiring(tool, f"it has two pieces for {', '.join(sorted(twice))}")
    return list(pieces)


def to_install(
    tool: str, pieces: Sequence[Piece], record: Record | None, *, force: bool = False
) -> list[Change]:
    """The changes, one for each piece, and one for each that was installed and is no more wanted.
    NotOurs when a file is somebody else's, or was changed since, unless `force`."""
    known = record or Record(tool=tool)
    changes = [one_piece(tool, piece, known, force=force) for piece in checked(tool, pieces)]
    return changes + [_undone(tool, entry, force=force) for entry in unwanted(pieces, known)]


def to_uninstall(
    record: Record, pieces: Sequence[Piece] = (), *, force: bool = False
) -> list[Change]:
    """The changes that undo what the record tells of, the last first. `pieces`: what the wiring
    wants, where there still is one."""
    edited = {str(one.path): one for one in pieces if isinstance(one, EditedFile)}
    return [
        _undone(record.tool, entry, piece=edited.get(entry.path), force=force)
        for entry in reversed(record.entries)
    ]


def one_piece(tool: str, piece: Piece, record: Record, *, force: bool = False) -> Change:
    """The change that puts this piece in."""
    if isinstance(piece, OwnFile):
        return _file(piece, record, force=force)
    if isinstance(piece, EditedFile):
        return _edit(tool, piece, record)
    return _line(tool, piece, record)


def unwanted(pieces: Sequence[Piece], record: Record) -> list[Entry]:
    """What was installed, and is no piece any more."""
    wanted = {(kind_of(one), str(one.path)) for one in pieces}
    return [entry for entry in record.entries if (entry.kind, entry.path) not in wanted]


def kind_of(piece: Piece) -> Kind:
    """As a record names it."""
    if isinstance(piece, OwnFile):
        return "file"
    return "edit" if isinstance(piece, EditedFile) else "line"


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
    before, after = read(piece.path), piece.content
    entry = record.entry("file", piece.path)
    hashes = [] if entry is None else entry.sha256
    keep = None
    made = replace(
        entry or Entry(kind="file", path=str(piece.path), created=before is None),
        sha256=[sha256(after)],
        text=piece.text,
    )
    if before is not None and before != after:
        if sha256(before) in hashes:
            made.sha256.insert(0, sha256(before))
        elif not force:
            raise _not_ours(piece.path, entry, before)
        else:
            keep = _free(piece.path, before)
            if entry is None or sha256(before) == entry.saved_sha256:  # else it is ours, edited
                made = replace(made, saved=str(keep), saved_sha256=sha256(before), created=False)
    return Change(
        path=piece.path,
        before=before,
        after=after,
        mode=piece.mode,
        entry=made,
        root=piece.root,
        keep=keep,
    )


def _edit(tool: str, piece: EditedFile, record: Record) -> Change:
    before, path = read(piece.path), str(piece.path)
    known = record.entry("edit", piece.path)
    now = edits.text(path, before)
    theirs = edits.without(tool, piece, now, known)
    # what is there as it should be stays where the user has moved it
    ours = now if edits.put(tool, piece, now) == now else edits.put(tool, piece, theirs)
    entry = replace(
        known or Entry(kind="edit", path=path, created=before is None),
        sha256=[edits.digest(ours)],
        text=ours,
        before=theirs,
    )
    if known is not None and edits.digest(now) in known.sha256:
        entry.sha256.append(edits.digest(now))
    after = ours.encode() if ours or before is not None else None
    return Change(
        path=piece.path, before=before, after=after, mode=None, entry=entry, root=piece.root
    )


def _line(tool: str, piece: SourceLine, record: Record) -> Change:
    before, marked = read(piece.path), lines.mark(tool, piece.comment)
    known = record.entry("line", piece.path)
    text = before or b""
    if known is not None and known.mark != marked.decode():  # an older version marked it otherwise
        text = lines.take(text, known.mark.encode(), unended=known.unended)
    after, unended = lines.put(text, tool, piece)
    if lines.find(text, marked) is None:  # whatever was true of the end before, this is now
        if piece.at == "end" and _goes_on(text):
            raise Unusable(str(piece.path), "ends with a backslash, and ours would join that line")
        known = replace(known, unended=unended, created=before is None) if known else None
    entry = known or Entry(
        kind="line", path=str(piece.path), unended=unended, created=before is None
    )
    entry = replace(entry, mark=marked.decode())
    return Change(path=piece.path, before=before, after=after, mode=None, entry=entry)


def _goes_on(data: bytes) -> bool:
    last = data.removesuffix(b"\n").removesuffix(b"\r")
    return (len(last) - len(last.rstrip(b"\\"))) % 2 == 1


def _undone(tool: str, entry: Entry, *, piece: EditedFile | None = None, force: bool) -> Change:
    path = Path(entry.path)
    before = read(path)
    keep = None
    if entry.kind == "edit":
        after = before
        if before is not None:
            after = edits.without(tool, piece, edits.text(entry.path, before), entry).encode()
            if entry.created and not after.strip():
                after = None
    elif entry.kind == "line":
        after = before
        if before is not None:
            after = lines.take(before, entry.mark.encode(), unended=entry.unended)
            if entry.created and not after:
                after = None
    else:
        after = read(Path(entry.saved)) if entry.saved else None
        if before is not None and sha256(before) == entry.saved_sha256:
            after = before  # it never left, or is back already: a kill came in between
        elif before is not None and sha256(before) not in entry.sha256:
            if not force:
                raise _not_ours(path, entry, before)
            keep = _free(path, before)
    return Change(
        path=path, before=before, after=after, mode=None, entry=entry, keep=keep, undo=True
    )


def _not_ours(path: Path, entry: Entry | None, before: bytes) -> NotOurs:
    if entry is None:
        return NotOurs(str(path), "is there and not from opsmesh")
    diff = show.diff(str(path), entry.text.encode(), before) if entry.text else ""
    return NotOurs(str(path), "was changed since opsmesh wrote it", diff=diff)


def _free(path: Path, data: bytes) -> Path:
    """A name beside the file that is free, or has this very content already."""
    made, number = Path(f"{path}{SAVED}"), 1
    while os.path.lexists(made) and read(made) != data:
        number += 1
        made = Path(f"{path}{SAVED}.{number}")
    return made


def read(path: Path) -> bytes | None:
    """A plain file's content; None when nothing is there; Unusable for anything else."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unusable(str(path), "is no plain file")
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(str(path), f"cannot be read: {error.strerror}") from error


def new_folders(path: Path) -> list[str]:
    """The folders above a path that are not there, the outermost first."""
    found: list[str] = []
    above = Path(os.path.realpath(path)).parent
    while not above.exists():
        found.insert(0, str(above))
        above = above.parent
    return found
