"""Doing what a plan says: one installation at a time, its record first, each file as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from opsmesh.producers.install import record as records
from opsmesh.producers.install.plan import Change, new_folders
from opsmesh.producers.install.record import Record
from opsmesh.router import paths

#: Ends the name of a file that stood where ours was to be.
SAVED = ".before-opsmesh"
#: Ends the name of a file that is being written. It is always the same, so that one which a crash
#: left behind is found again.
NEW = ".opsmesh-new"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No other installation of this user plans or writes meanwhile."""
    paths.private_dir(str(records.folder()))
    lock = os.open(records.folder() / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def install(tool: str, changes: Sequence[Change]) -> None:
    """Write what is needed. Where it ends halfway, the record tells of all that may be there."""
    planned = [change if change.undo else _noted(change) for change in changes]
    staying = [change.entry for change in planned if not change.undo]
    going = [change.entry for change in planned if change.undo]
    made = Record(tool=tool, version=version("opsmesh"), entries=[*staying, *going])
    records.store(made)
    for change in planned:
        _perform(change)
    if going:
        records.store(replace(made, entries=staying))


def uninstall(tool: str, changes: Sequence[Change]) -> None:
    """Undo it; the record goes last."""
    for change in changes:
        _perform(change)
    records.forget(tool)


def _noted(change: Change) -> Change:
    """The change, whose record knows the folders and the copy that it will make."""
    entry = change.entry
    if folders := new_folders(change.path):
        entry = replace(entry, folders=folders)
    if change.save:
        entry = replace(entry, saved=str(change.path) + SAVED, created=False)
    return replace(change, entry=entry)


def _perform(change: Change) -> None:
    if change.save and change.before is not None:
        _write(Path(str(change.path) + SAVED), change.before, _mode(change.path))
    if change.after is None:
        change.path.unlink(missing_ok=True)
    elif change.needed:
        mode = _mode(Path(change.entry.saved)) if change.undo and change.entry.saved else None
        _write(change.path, change.after, change.mode or mode)
    if not change.undo:
        return
    _new(Path(os.path.realpath(change.path))).unlink(missing_ok=True)
    if change.entry.saved and not change.save:
        Path(change.entry.saved).unlink(missing_ok=True)  # it is back in its place
    for folder in reversed(change.entry.folders):
        with contextlib.suppress(OSError):  # something else lies there now
            Path(folder).rmdir()


def _write(path: Path, data: bytes, mode: int | None) -> None:
    """Put the content where the path leads: a link, which dotfile managers make, stays a link."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    kept = _status(target)
    temporary = _new(target)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if kept is not None:
            with contextlib.suppress(PermissionError):  # not ours to give away: it is ours then
                os.chown(temporary, kept.st_uid, kept.st_gid)
        temporary.chmod(mode or (kept.st_mode & 0o7777 if kept else 0o644))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new(target: Path) -> Path:
    return target.with_name(f".{target.name}{NEW}")


def _mode(path: Path) -> int | None:
    status = _status(path)
    return None if status is None else status.st_mode & 0o7777


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
