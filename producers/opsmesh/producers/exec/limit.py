"""The time limit of a command, and signals to all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path


class Limit(threading.Thread):
    """Ends the command when its time is over: TERM, and KILL after the grace."""

    def __init__(self, timeout: float, grace: float, pid: int, *, group: bool) -> None:
        super().__init__(daemon=True)
        self._timeout, self._grace, self._pid, self._group = timeout, grace, pid, group
        self._done = threading.Event()
        self.used: signal.Signals | None = None

    def run(self) -> None:
        if self._done.wait(self._timeout):
            return
        self.used = signal.SIGTERM
        send(self._pid, signal.SIGTERM, group=self._group)
        send(self._pid, signal.SIGCONT, group=self._group)  # a stopped process hears no TERM
        if not self._done.wait(self._grace):
            self.used = signal.SIGKILL
            send(self._pid, signal.SIGKILL, group=self._group)

    def ended(self) -> None:
        self._done.set()
        if self.is_alive():
            self.join()
        if self.used:  # what ignored TERM, and outlived the command
            send(self._pid, signal.SIGKILL, group=self._group)


def send(pid: int, signum: int, *, group: bool) -> None:
    """Signal the command and what it started: its process group, or else its descendants."""
    for target in [-pid] if group else [pid, *_descendants(pid)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, signum)


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(child) for child in children.read_text().split()]
        except OSError:
            continue
        for child in pids:
            yield child
            yield from _descendants(child)
