"""Evidence bundles on disk: `<bundles>/<date>/<run id>-<step>/` with event.json and manifest.json.

A bundle is written into a dotted folder, fsynced and renamed, so that a folder with the final name
is always whole. A step that is run again after a crash finds its bundle and keeps it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from opsmesh.handlers.actions.contract import StepContext
from opsmesh.schemas import times
from opsmesh.schemas.redact import Report

#: Bytes of a collected file, unless its item says otherwise, and the most that it may say.
DEFAULT_FILE: Final = 1024 * 1024
MAX_FILE: Final = 64 * 1024 * 1024

MANIFEST: Final = "manifest.json"
EVENT: Final = "event.json"

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One collected thing: where it came from, and its bytes or why there are none."""

    name: str
    source: str
    data: bytes | None = None
    command: tuple[str, ...] | None = None
    path: str | None = None
    exit_code: int | None = None
    truncated: bool = False
    error: str | None = None

    def without_error(self) -> Self:
        """The same piece, its exit code taken as good."""
        return replace(self, error=None)


def place(ctx: StepContext) -> tuple[Path, bool]:
    """The bundle's folder, and whether this step of this profile has written it already."""
    day = ctx.bundles / times.format_us(ctx.event.ts_us)[:10]
    name = _safe(f"{ctx.run_id}-{ctx.step_id}")
    number = 1
    while True:  # an edited profile starts its run again: its older bundle is evidence, and stays
        folder = day / (name if number == 1 else f"{name}.{number}")
        if not folder.exists():
            return folder, False
        if read_manifest(folder).get("profile_hash") == ctx.profile_hash:
            return folder, True
        number += 1


def read_manifest(folder: Path) -> dict[str, Any]:
    """The bundle's manifest; an empty one when it cannot be read."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(folder: Path, ctx: StepContext, pieces: Iterable[Piece]) -> None:
    """Write the bundle, durable when this returns. Secrets in text files are removed."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700, parents=True)
    # The event's own bytes as the archive holds them: their sum is the same.
    data, report = ctx.redactor.event(ctx.data, otherwise=ctx.event.id)
    event = Piece(name=EVENT, source="event", data=data)
    files = [_write_piece(temporary, event, EVENT, report)]
    taken = {EVENT, MANIFEST}
    for piece in pieces:
        name = _free_name(piece.name, taken)
        files.append(_write_piece(temporary, *_without_secrets(piece, name, ctx)))
    manifest = {
        "version": 1,
        "created_utc": times.format_us(times.now_us()),
        "profile": ctx.profile,
        "profile_hash": ctx.profile_hash,
        "run_id": ctx.run_id,
        "step": ctx.step_id,
        "attempt": ctx.attempt,
        "event_id": ctx.event.id,
        "topic": ctx.event.topic,
        "correlation_id": ctx.event.correlation_id,
        "host": ctx.host,
        "redaction_context": ctx.place,
        "files": files,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    _write_file(temporary / MANIFEST, text.encode(errors="replace"))
    _sync_folder(temporary)
    temporary.rename(folder)
    _sync_folder(folder.parent)
    _sync_folder(folder.parent.parent)


def _write_piece(folder: Path, piece: Piece, name: str, report: Report) -> dict[str, Any]:
    data = piece.data
    if data is not None:
        _write_file(folder / name, data)
    return {
        "name": name,
        "sha256": None if data is None else hashlib.sha256(data).hexdigest(),
        "size": None if data is None else len(data),
        "source": piece.source,
        "command": list(piece.command) if piece.command else None,
        "exit_code": piece.exit_code,
        "path": piece.path,
        "truncated": piece.truncated,
        "redacted": bool(report),
        "removed": Counter(found.rule for found in report),
        "error": piece.error,
    }


def _without_secrets(piece: Piece, name: str, ctx: StepContext) -> tuple[Piece, str, Report]:
    """The piece without secrets in its text, its command and its error; its name, and what was
    taken out of the text."""
    data, report = piece.data, Report()
    if data is not None:
        data, report = ctx.redactor.file(data, context=ctx.place, path=name)
    about = (piece.source, piece.command, piece.error)
    (source, command, error), _ = ctx.redactor.redact(about, context=f"{ctx.place}:{name}")
    piece = replace(piece, data=data, source=source, command=command, error=error)
    return piece, name, report


def _free_name(wanted: str, taken: set[str]) -> str:
    safe = _safe(wanted)
    stem, dot, suffix = safe.rpartition(".") if "." in safe else (safe, "", "")
    name, number = safe, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{dot}{suffix}"
    taken.add(name)
    return name


def _safe(name: str) -> str:
    return _UNSAFE.sub("_", name)[:120].lstrip(".") or "file"


def _write_file(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
