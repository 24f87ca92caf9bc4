"""The agent's side of the spool: what waits, read a batch at a time; damage is set aside here.

The one rule: nothing that lies in the folder stops what lies behind it. A file that cannot be read
now is left out and named once; one that never can is moved to `corrupt/`. No asyncio in here: the
outbox calls it in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import structlog

from opsmesh.router import logs, losses, paths, spool, spool_overflow, spool_room
from opsmesh.router.spool_room import Gauge

#: Most events and bytes that are read at a time, and that are written into one file.
MAX_EVENTS, MAX_BYTES = 1000, 4 * 1024 * 1024
#: Errors of a file that time does not mend: a link, no permission, a folder or pipe or socket.
NEVER_READ: Final = frozenset({errno.ELOOP, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENXIO})
#: Seconds until a file that could not be read for another reason is tried again.
READ_AGAIN: Final = 60.0

log = structlog.get_logger()


class File(NamedTuple):
    """One file's events."""

    name: str
    lines: list[bytes]


class SpoolReader:
    """One folder, while the agent runs."""

    def __init__(self, spool_dir: str) -> None:
        self.dir = spool_dir
        self._gauge: Gauge | None = None
        self._throttle = logs.Throttle()
        self._unreadable: dict[str, float] = {}

    def open(self, max_bytes: int, when_full: str) -> None:
        """Put the folder in order, and tell its writers what they may use."""
        paths.private_dir(self.dir)
        spool.sweep(self.dir)
        spool.follow(self.dir)
        for name in losses.counted(self.dir):  # a crash came between counting it and removing it
            spool.remove(f"{self.dir}/{name}")
        spool_room.set_limits(self.dir, max_bytes, when_full)
        self._fresh_gauge().set(spool_overflow.count(self.dir))

    @property
    def untouched(self) -> bool:
        """Whether nobody has written since `rest`: three microseconds, to be asked for each event.
        False leads to a look at the folder."""
        return self._gauge is not None and self._gauge.untouched

    def rest(self) -> bool:
        """Whether the spool is empty; from now on `untouched` tells of the next writer."""
        if self._waits():
            return False
        # In this order: who writes after the gauge was set changes it, and who wrote before it
        # has his file there already.
        self._fresh_gauge().set(0)
        return not self._waits()

    def names(self) -> list[str]:
        """The files that wait and can be read, the oldest first."""
        found = spool.names(self.dir)
        if self._unreadable:
            since = time.monotonic() - READ_AGAIN
            known = {name: at for name, at in self._unreadable.items() if at > since}
            self._unreadable = {name: at for name, at in known.items() if name in found}
            found = [name for name in found if name not in self._unreadable]
        return found

    def read(self, names: Sequence[str]) -> tuple[list[File], Sequence[str]]:
        """The first of these files, together about as much as one batch of the publisher, and the
        names that are left."""
        files: list[File] = []
        events = size = 0
        for n, name in enumerate(names, 1):
            lines = self._lines(name)
            if lines is None:
                continue
            files.append(File(name, lines))
            events += len(lines)
            size += sum(map(len, lines))
            if events >= MAX_EVENTS or size >= MAX_BYTES:
                return files, names[n:]
        return files, ()

    def remove(self, name: str) -> None:
        """All of a file is safe at the broker."""
        size = spool.remove(f"{self.dir}/{name}")
        if self._gauge is not None and size:
            self._gauge.sub(size)

    def keep(self, name: str, lines: Sequence[bytes]) -> None:
        """Only these of a file's events are still to be sent."""
        spool.rewrite(f"{self.dir}/{name}", lines)

    def facts(self) -> dict[str, Any]:
        """For `status`: bytes that it holds, and what cannot be read at present."""
        used = self._gauge.used if self._gauge else 0
        return {"bytes": used, "unreadable": sorted(self._unreadable)}

    def _lines(self, name: str) -> list[bytes] | None:
        """A file's events; None when there is nothing to send in it."""
        path = f"{self.dir}/{name}"
        try:
            good, corrupt = spool.read(path)
        except FileNotFoundError:  # a person has removed it, or it was dropped
            return None
        except OSError as error:
            self._out_of_the_way(name, error)
            return None
        if not corrupt:
            return good
        try:
            kept = spool.set_aside(self.dir, name, corrupt)
            if good:
                spool.rewrite(path, good)
            else:
                self.remove(name)
        except OSError as error:  # a full disk: the file stays as it is, and is tried again
            self._leave(name, error)
            return None
        log.error("spool.corrupt", file=name, records=len(corrupt), kept=kept)
        return good or None

    def _out_of_the_way(self, name: str, error: OSError) -> None:
        if error.errno in NEVER_READ:
            with contextlib.suppress(OSError):
                kept = spool.move_aside(self.dir, name)
                log.error("spool.corrupt", file=name, error=str(error), kept=kept)
                return
        elif error.errno != errno.EIO:  # too many open files, no memory: not this file's fault
            raise error
        self._leave(name, error)

    def _leave(self, name: str, error: OSError) -> None:
        self._unreadable[name] = time.monotonic()
        if self._throttle.allows("unreadable"):
            log.error("spool.unreadable", file=name, error=str(error), next_try_s=READ_AGAIN)

    def _waits(self) -> bool:
        return bool(self.names()) if self._unreadable else not spool.is_empty(self.dir)

    def _fresh_gauge(self) -> Gauge:
        """The gauge that writers use now: a person may have removed the file, or the folder."""
        if self._gauge is not None:
            self._gauge.close()
        self._gauge = Gauge(self.dir)
        return self._gauge
