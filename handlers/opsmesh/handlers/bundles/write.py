"""A bundle is written into a dotted folder, fsynced and renamed: it is there as a whole or not at
all. A step that is run again after a crash finds its bundle and keeps it.

Secrets are taken out of every piece before anything is written; what the manifest tells of them is
how many each rule took, never what.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec

from opsmesh.handlers.actions.contract import StepContext
from opsmesh.handlers.bundles.folders import EVENT, MANIFEST, REPORT, read_manifest, safe
from opsmesh.handlers.collectors.contract import Piece
from opsmesh.handlers.evidence.disk import sync_folder
from opsmesh.schemas import times
from opsmesh.schemas.redact import Report

#: The manifest's own version.
VERSION: Final = 2
#: Bytes of JSON of a piece's facts; more than that is no fact but a piece.
MAX_FACTS: Final = 16 * 1024

#: Makes the report of pieces whose secrets are gone; what could not be answered, one text each.
Reporter = Callable[[Sequence[Piece]], tuple[str, list[str]]]


def place(ctx: StepContext) -> tuple[Path, bool]:
    """The bundle's folder, and whether this step of this profile has written it already."""
    day = ctx.bundles / times.format_us(ctx.event.ts_us)[:10]
    name = safe(f"{ctx.run_id}-{ctx.step_id}")
    number = 1
    while True:  # an edited profile starts its run again: its older bundle is evidence, and stays
        folder = day / (name if number == 1 else f"{name}.{number}")
        if not folder.exists():
            return folder, False
        if read_manifest(folder).get("profile_hash") == ctx.profile_hash:
            return folder, True
        number += 1


def write(
    folder: Path,
    ctx: StepContext,
    pieces: Sequence[Piece],
    *,
    started_us: int,
    total_bytes: int,
    share: bool = True,
    reporter: Reporter | None = None,
) -> None:
    """Write the bundle, durable when this returns."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700, parents=True)
    try:
        _fill(temporary, ctx, pieces, started_us, total_bytes, share, reporter)
    except BaseException:  # the disk is full: what is half done does not fill it further
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(temporary)
    temporary.rename(folder)
    sync_folder(folder.parent)
    sync_folder(folder.parent.parent)


def _fill(
    temporary: Path,
    ctx: StepContext,
    pieces: Sequence[Piece],
    started_us: int,
    total_bytes: int,
    share: bool,
    reporter: Reporter | None,
) -> None:
    # The event's own bytes as the archive holds them: their sum is the same.
    data, found = ctx.redactor.event(ctx.data, otherwise=ctx.event.id)
    event = Piece(name=EVENT, source="event", data=data, key="event")
    files = [_write_piece(temporary, replace(event, removed=_counts(found)))]
    taken = {EVENT, MANIFEST, *([REPORT] if reporter else [])}
    clean = [_without_secrets(one, _free_name(one.name, taken), ctx) for one in pieces]
    clean = _within(clean, total_bytes - len(data))
    if reporter is not None:
        text, unanswered = reporter(clean)
        report = Piece(
            name=REPORT,
            source="report",
            key="report",
            data=text.encode(errors="replace"),
            error="; ".join(unanswered) or None,
        )
        # it also quotes the event and earlier steps, which nobody has looked through yet
        files.append(_write_piece(temporary, _without_secrets(report, REPORT, ctx)))
    files += [_write_piece(temporary, piece) for piece in clean]
    manifest = {
        "version": VERSION,
        "created_utc": times.format_us(times.now_us()),
        "duration_ms": round((times.now_us() - started_us) / 1e3, 3),
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
        "removed": dict(sum((Counter(file["removed"]) for file in files), Counter())),
        "truncated": [file["name"] for file in files if file["truncated"]],
        "errors": sum(1 for file in files if file["error"]),
        "bytes": sum(file["size"] or 0 for file in files),
        "limits": {"bytes": total_bytes},
        "share": share,
        "made_by": {"opsmesh": version("opsmesh"), "python": platform.python_version()},
        "files": files,
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    write_file(temporary / MANIFEST, text.encode(errors="replace"))


def write_file(path: Path, data: bytes) -> None:
    """A new file, on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_piece(folder: Path, piece: Piece) -> dict[str, Any]:
    data = piece.data
    if data is not None:
        write_file(folder / piece.name, data)
    return {
        "name": piece.name,
        "sha256": None if data is None else hashlib.sha256(data).hexdigest(),
        "size": None if data is None else len(data),
        "source": piece.source,
        "key": piece.key,
        "command": list(piece.command) if piece.command else None,
        "exit_code": piece.exit_code,
        "path": piece.path,
        "truncated": piece.truncated,
        "redacted": bool(piece.removed),
        "removed": dict(piece.removed),
        "steady_marks": piece.steady,
        "duration_ms": round(piece.duration_ms, 3),
        "facts": dict(piece.facts),
        "error": piece.error,
    }


def _without_secrets(piece: Piece, name: str, ctx: StepContext) -> Piece:
    """The piece under its name without secrets in its text, its command, its facts and its error;
    `removed` is what was taken out of the text."""
    data, report = piece.data, Report()
    if data is not None:
        data, report = ctx.redactor.file(data, context=ctx.place, path=name, cut=piece.truncated)
    about = (piece.source, piece.command, piece.error, piece.path)
    (source, command, error, path), _ = ctx.redactor.redact(about, context=f"{ctx.place}:{name}")
    facts, _ = ctx.redactor.redact(dict(piece.facts), context=f"{ctx.place}:{name}:facts")
    return replace(
        piece,
        name=name,
        data=data,
        source=source,
        command=command,
        error=error,
        path=path,
        facts=_small(facts),
        removed=Counter(piece.removed) + _counts(report),
    )


def _counts(report: Report) -> Counter[str]:
    return Counter(found.rule for found in report)


def _small(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return facts if len(msgspec.json.encode(facts)) <= MAX_FACTS else {}
    except (TypeError, ValueError):  # a stranger's, that are no JSON
        return {}


def _within(pieces: Sequence[Piece], room: int) -> list[Piece]:
    """The pieces, in their order, as far as there is room; what does not fit is named."""
    kept = []
    for piece in pieces:
        size = len(piece.data or b"")
        if size > room:
            reason = f"left out: {size} bytes are more than the bundle has room for"
            piece = replace(piece, data=None, error=reason, truncated=True)
            size = 0
        room -= size
        kept.append(piece)
    return kept


def _free_name(wanted: str, taken: set[str]) -> str:
    name = safe(wanted)
    stem, dot, suffix = name.rpartition(".") if "." in name else (name, "", "")
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{stem}-{number}{dot}{suffix}"
    taken.add(free)
    return free
