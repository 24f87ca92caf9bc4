"""`config_snapshot`: named files and folders as they are, and what changed since the last bundle.

A file in which a secret was found is told by the hash of its text without the secret: the hash of a
short password can be tried out.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.earlier import changes, steady
from opsmesh.handlers.collectors.files import read_end
from opsmesh.schemas import times

#: Files of a snapshot at most, and folders that are looked into.
MAX_FILES: Final = 500
MAX_FOLDERS: Final = 200
#: Bytes of a file whose text is kept; a larger one is told by its hash.
MAX_TEXT: Final = 64 * 1024
#: Bytes of a file whose hash is made; a larger one is told by its size.
MAX_HASHED: Final = 64 * 2**20


class ConfigSnapshotSpec(Spec):
    """Which files and folders; a folder with all that is below it."""

    paths: Annotated[list[Text], Field(min_length=1, max_length=100)]
    text: Annotated[bool, Field(description="The files' text too, not only their hashes.")] = True
    max_files: Annotated[int, Field(ge=1, le=MAX_FILES)] = 200


class ConfigSnapshot:
    """`config_snapshot.txt`: each file with mode, size, time, hash, then its text;
    `config_snapshot.diff` where there was a bundle before."""

    key: ClassVar[str] = "config_snapshot"
    spec: ClassVar[type[ConfigSnapshotSpec]] = ConfigSnapshotSpec

    def __init__(self, spec: ConfigSnapshotSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        paths = []
        for text in self._spec.paths:
            path = Path(request.render(text)).expanduser()
            if not path.is_absolute():
                raise Unavailable(f"{str(path)[:80]!r} is no absolute path")
            paths.append(path)
        return await asyncio.to_thread(self._collect, request, paths)

    def _collect(self, request: Request, paths: Sequence[Path]) -> Sequence[Piece]:
        entries: list[Entry] = []
        missing: list[str] = []
        cut = False
        for path in paths:
            if not os.path.lexists(path):
                missing.append(str(path))
            for file in _files(path):
                if len(entries) >= self._spec.max_files:
                    cut = True
                    break
                entries.append(_entry(request, file, text=self._spec.text))
        removed: Counter[str] = Counter()
        for entry in entries:
            removed.update(entry.removed)
        head = "".join(entry.line for entry in entries)
        head += "".join(f"{'-':<10} {'-':>9} {'-':<27} {'not there':<64} {m}\n" for m in missing)
        body = "".join(
            f"\n==> {entry.path}\n{entry.text}" for entry in entries if entry.text is not None
        )
        text = head + body
        facts: dict[str, Any] = {
            "files": len(entries),
            "missing": missing,
            "newest": [
                {"path": str(e.path), "time": times.format_us(e.changed_us)}
                for e in sorted(entries, key=lambda e: -e.changed_us)[:10]
            ],
        }
        difference = changes(request, text)
        facts["changed"] = bool(difference)
        pieces = [request.piece(text, facts=facts, removed=removed, truncated=cut, steady=True)]
        if difference:
            pieces.append(request.beside(difference, ".diff"))
        return pieces


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, link or other thing of a snapshot."""

    path: Path
    line: str
    changed_us: int
    text: str | None
    removed: dict[str, int]


def _files(path: Path) -> Iterator[Path]:
    """The file, or the files below the folder in a fixed order; a link is not followed below."""
    if not path.is_dir():
        if os.path.lexists(path):
            yield path
        return
    for looked, (root, folders, names) in enumerate(os.walk(path)):
        folders.sort()
        if looked >= MAX_FOLDERS:
            return
        for name in sorted(names):
            yield Path(root, name)


def _entry(request: Request, path: Path, *, text: bool) -> Entry:
    facts = path.lstat()
    kept: str | None = None
    removed: dict[str, int] = {}
    if stat.S_ISLNK(facts.st_mode):
        digest = f"-> {path.readlink()}"[:300]
    elif not stat.S_ISREG(facts.st_mode):
        digest = "not a regular file"
    elif facts.st_size > MAX_HASHED:
        digest = "too large for a hash"
    else:
        try:
            data, _ = read_end(path, MAX_HASHED)
        except (OSError, ValueError) as error:
            digest = getattr(error, "strerror", None) or str(error)
        else:
            whole = len(data) <= MAX_TEXT and b"\0" not in data
            clean, removed = steady(request, data.decode(errors="replace"), str(path))
            digest = hashlib.sha256(clean.encode() if removed else data).hexdigest()
            kept = clean if text and whole else None
    when = times.format_us(facts.st_mtime_ns // 1000)
    line = f"{stat.filemode(facts.st_mode)} {facts.st_size:>9} {when:<27} {digest:<64} {path}\n"
    return Entry(
        path=path,
        line=line,
        changed_us=facts.st_mtime_ns // 1000,
        text=kept if kept is None or kept.endswith("\n") else f"{kept}\n",
        removed=removed,
    )
