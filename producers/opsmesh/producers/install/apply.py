"""Doing what a plan says: one installation at a time, its record first, each file as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

from opsmesh.producers.errors import Unusable
from opsmesh.producers.install import plan
from opsmesh.producers.install import record as records
from opsmesh.producers.install.plan import Change
from opsmesh.producers.install.record import Record
from opsmesh.router import paths

#: Ends the name of a file that is being written. It is always the same, so that one which a crash
#: left behind is found again.
NEW: Final = ".opsmesh-new"


@contextlib.contextmanager
def alone(waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """No other installation of this user plans or writes meanwhile; `waiting` is called when one
    does, and this one has to wait for it."""
    place = records.folder()
    try:
        paths.private_dir(paths.state_dir())  # perhaps the first that ever lies there
        paths.private_dir(str(place))
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unusable(str(place), f"cannot hold a record: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def install(
    tool: str, changes: Sequence[Change], *, options: Mapping[str, str] | None = None
) -> None:
    """Write what is needed. Where it ends halfway, the record tells of all that may be there.
    `options` are those that the wiring was made with."""
    planned = [change if change.undo else _noted(change) for change in changes]
    staying = [change.entry for change in planned if not change.undo]
    going = [change.entry for change in planned if change.undo]
    made = Record(
        tool=tool,
        version=version("opsmesh"),
        options=dict(options or {}),
        entries=[*staying, *going],
    )
    _still_so(planned)
    _store(made)
    for change in planned:
        _perform(change)
    if going:
        _store(replace(made, entries=staying))


def uninstall(tool: str, changes: Sequence[Change]) -> None:
    """Undo it; the record goes last."""
    _still_so(changes)
    for change in changes:
        _perform(change)
    records.forget(tool)


def _store(record: Record) -> None:
    try:
        records.store(record)
    except OSError as error:
        raise Unusable(str(records.folder()), f"cannot hold a record: {error.strerror}") from error


def _still_so(changes: Sequence[Change]) -> None:
    """Whoever was asked may have taken an hour, and an editor."""
    for change in changes:
        if plan.read(change.path) != change.before:
            raise Unusable(str(change.path), "was changed meanwhile; call the command again")


def _noted(change: Change) -> Change:
    """The change, whose record knows the folders that it will make."""
    folders = {*change.entry.folders, *plan.new_folders(change.path)}
    return replace(change, entry=replace(change.entry, folders=sorted(folders, key=len)))


def _perform(change: Change) -> None:
    try:
        if change.needed:
            _replace(change)
        if change.undo:
            _tidy(change)
    except OSError as error:
        raise Unusable(str(change.path), f"cannot be written: {error.strerror}") from error


def _replace(change: Change) -> None:
    _still_so([change])
    if change.keep is not None and change.before is not None:
        _write(change.keep, change.before, like=change.path)
    if change.after is None:
        target = Path(os.path.realpath(change.path))  # a link was there before us, and stays
        target.unlink(missing_ok=True)
        _sync(target.parent)
        return
    saved = Path(change.entry.saved) if change.undo and change.entry.saved else None
    _write(change.path, change.after, mode=change.mode, like=saved)


def _tidy(change: Change) -> None:
    """What else an installation left: a copy that is back in its place, a file that a kill left
    half written, folders with nothing in them."""
    _new(Path(os.path.realpath(change.path))).unlink(missing_ok=True)
    if change.entry.saved:
        saved = Path(change.entry.saved)
        _new(saved).unlink(missing_ok=True)
        if change.after is not None and plan.read(saved) == change.after:
            saved.unlink()
    for folder in reversed(change.entry.folders):
        with contextlib.suppress(OSError):  # something else lies there now
            Path(folder).rmdir()


def _write(path: Path, data: bytes, *, mode: int | None = None, like: Path | None = None) -> None:
    """Put the content where the path leads: a link, which dotfile managers make, stays a link.
    Owner, mode and attributes are those of `like`, or else of what was there."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, kept = _new(target), like or target
    temporary.unlink(missing_ok=True)  # a crash has left it
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # nobody else may read it meanwhile: what is replaced may hold secrets
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data)
            _as(file.fileno(), kept, mode)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(target.parent)


def _as(descriptor: int, kept: Path, mode: int | None) -> None:
    """Owner, attributes (an ACL is one) and mode, in this order: the first clears bits of the
    last."""
    try:
        status = kept.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, mode or 0o644)
        return
    with contextlib.suppress(PermissionError):  # not ours to give away: it is ours then
        os.fchown(descriptor, status.st_uid, status.st_gid)
    with contextlib.suppress(OSError):  # a file system without them
        for name in os.listxattr(kept):
            with contextlib.suppress(OSError):  # not every one is ours to set
                os.setxattr(descriptor, name, os.getxattr(kept, name))
    os.fchmod(descriptor, mode or status.st_mode & 0o7777)


def _sync(folder: Path) -> None:
    """A record that is on disk must not tell of less than what is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new(target: Path) -> Path:
    return target.with_name(f".{target.name}{NEW}")
