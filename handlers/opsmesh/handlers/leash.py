"""What ties the programs of a step together, so that a successor finds them.

A handler that is killed leaves its step's programs running, and one that is stopped (SIGSTOP) does
not stop them. So every program of a step holds a shared lock on a file of that step: the descriptor
is handed down to whatever it starts, and the kernel lets go of it with the last of them. The file
names the process groups too, for programs that close what they inherit (sudo does), and the units
that systemd runs for the step, whose processes inherit nothing from us.

The one rule: who has the lock alone knows that nothing of the step is left on this host, and closes
the file: a handler that wakes up later starts nothing on it any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from opsmesh.handlers.errors import TakenOver
from opsmesh.handlers.procfs import has_open, proc, procs
from opsmesh.handlers.sandbox import units
from opsmesh.handlers.sandbox.units import Unit

#: Seconds between TERM and KILL for what a step left behind, and between looks.
GRACE_S: Final = 2.0
LOOK_S: Final = 0.05
#: Seconds after which the file of a step is of no use to anybody.
KEEP_S: Final = 86400.0

#: The line of a file on which nothing may be started.
_CLOSED: Final = b"closed\n"


class Leash:
    """The file of one step of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def starting(self) -> Iterator[int]:
        """The descriptor for a program that is started in the body; TakenOver when the step is
        somebody else's."""
        descriptor = _open(self.path)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TakenOver(str(self.path)) from None
            if _CLOSED in _lines(descriptor):
                raise TakenOver(str(self.path))
            yield descriptor
        finally:
            os.close(descriptor)

    def started(self, descriptor: int, pid: int) -> None:
        """Name a program's group: it is the leader of one of its own."""
        found = proc(pid)
        if found is not None:
            os.write(descriptor, f"{pid} {found.start}\n".encode())

    def unit(self, descriptor: int, unit: Unit) -> None:
        """Name a unit that systemd is about to start."""
        os.write(descriptor, f"unit {unit.name} {unit.manager}\n".encode())


#: The leash of the step that this task carries out.
_current: ContextVar[Leash | None] = ContextVar("leash", default=None)


def current() -> Leash | None:
    """The leash for a program that is started now; None outside of a step."""
    return _current.get()


@contextlib.contextmanager
def on(path: Path) -> Iterator[None]:
    """Put what the body starts on a leash. The body's end has killed the groups; what left them is
    on its own from then on."""
    token = _current.set(Leash(path))
    try:
        yield
    finally:
        _current.reset(token)
        path.unlink(missing_ok=True)


async def clear(path: Path, *, spare: int) -> list[int]:
    """End what is left of a step on this host, close its file, and return when nothing is left; the
    pids that were found. `spare` is the handler that started it.

    A program of another user cannot be ended: it is waited for.
    """
    met: dict[int, None] = {}
    kill_at = time.monotonic() + GRACE_S
    for unit in await asyncio.to_thread(_units, path):
        await unit.refuse()  # one that its manager has not started yet has no process to find
    while True:
        if not (found := await asyncio.to_thread(_left, path, spare)) and _close(path):
            return list(met)
        overdue = time.monotonic() >= kill_at
        for pid in found:
            if overdue:
                _signal(pid, signal.SIGKILL)
            elif pid not in met:
                _signal(pid, signal.SIGTERM)
                _signal(pid, signal.SIGCONT)  # one that is stopped would not hear of it
            met[pid] = None
        await asyncio.sleep(LOOK_S)


def sweep(folder: Path) -> None:
    """Remove files that nobody can need any more."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > KEEP_S and _close(path):
                    path.unlink()


def _left(path: Path, spare: int) -> list[int]:
    """The processes that hold the lock, or belong to a group that the file names."""
    try:
        descriptor = _open(path, create=False)
    except FileNotFoundError:
        return []
    try:
        wanted = os.fstat(descriptor)
        named = [line.split() for line in _lines(descriptor) if line != _CLOSED]
    finally:
        os.close(descriptor)
    groups = set()
    inside = {pid for unit in _units(path) for pid in units.pids(unit.name)}
    for pid, start in ((int(one[0]), int(one[1])) for one in named if one[0] != b"unit"):
        leader = proc(pid)
        # while a group has members, its number is given to no other process
        if leader is None or leader.start == start:
            groups.add(pid)
    others = (one for one in procs() if one.pid not in (spare, os.getpid()))
    return [
        one.pid
        for one in others
        if one.group in groups or one.pid in inside or has_open(one.pid, wanted)
    ]


def _units(path: Path) -> list[Unit]:
    """The units that the file names."""
    try:
        descriptor = _open(path, create=False)
    except FileNotFoundError:
        return []
    try:
        named = [line.decode().split() for line in _lines(descriptor)]
    finally:
        os.close(descriptor)
    return [
        Unit(one[1], one[2])
        for one in named
        if len(one) == 3 and one[0] == "unit" and units.NAME.fullmatch(one[1])
    ]


def _close(path: Path) -> bool:
    """Let nothing be started on the file any more; False while somebody has a lock on it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, _CLOSED)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _open(path: Path, *, create: bool = True) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW
    if not create:
        return os.open(path, flags)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, flags | os.O_CREAT, 0o600)


def _lines(descriptor: int) -> list[bytes]:
    text = os.pread(descriptor, 1 << 20, 0)
    return [line for line in text.splitlines(keepends=True) if line.endswith(b"\n")]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
