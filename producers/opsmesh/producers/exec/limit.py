"""The time limit of a command, and signals to all that it started.

The grace is for all of them: a shell ends at once, and what it started may still be writing down
where it was.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class Limit(threading.Thread):
    """Ends the command when its time is over: TERM, and KILL after the grace."""

    def __init__(self, timeout: float, grace: float, pid: int, *, group: bool) -> None:
        super().__init__(daemon=True)
        self._timeout, self._grace, self._pid, self._group = timeout, grace, pid, group
        self._done = threading.Event()
        self._over = 0.0
        self.used: signal.Signals | None = None

    def run(self) -> None:
        if self._done.wait(self._timeout):
            return
        self._over = time.monotonic() + self._grace
        self.used = signal.SIGTERM
        send(self._pid, signal.SIGTERM, group=self._group)
        send(self._pid, signal.SIGCONT, group=self._group)  # a stopped process hears no TERM
        if not self._done.wait(self._grace):
            self.used = signal.SIGKILL
            send(self._pid, signal.SIGKILL, group=self._group)

    def ended(self) -> None:
        """The command has ended; the limit has nothing more to do with it."""
        self._done.set()
        if self.is_alive():
            self.join()

    def waits(self) -> bool:
        """Whether something that the command started has outlived it, and still has time."""
        if not self.used or not self._group or time.monotonic() >= self._over:
            return False
        return _anybody(self._pid)

    def close(self) -> None:
        """End what is left when all time is over."""
        if self.used:
            send(self._pid, signal.SIGKILL, group=self._group)


def send(pid: int, signum: int, *, group: bool) -> None:
    """Signal the command and what it started: its process group, or else its descendants."""
    for target in [-pid] if group else [pid, *_descendants(pid)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, signum)


def _anybody(group: int) -> bool:
    """Whether a process of the group is at work. One that is dead, and that nobody has taken note
    of, is not: in a container, init may never do so."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(pgrp) == group and state not in ("Z", "X"):
            return True
    return False


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(child) for child in children.read_text().split()]
        except OSError:
            continue
        for child in pids:
            yield child
            yield from _descendants(child)
