"""The process that listens at a UNIX socket: whether there is one, and when it goes.

A socket's file outlives a process that was killed, and its end is no change of any file. The kernel
knows who listens (SO_PEERCRED), and a pidfd becomes readable at that process's end: no polling, and
no connection that the process would have to keep.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from opsmesh.router.client import with_address

#: Seconds that a connection may take: a full backlog of a process that hangs makes it wait.
CONNECT: Final = 1.0
#: `struct ucred`: process, user, group (unix(7)).
UCRED: Final = struct.Struct("3i")


@dataclass(frozen=True)
class Peer:
    """A process that listens, or listened. `fileno` is for select: readable means gone."""

    pid: int
    _pidfd: int

    @classmethod
    def at(cls, path: Path) -> Self | None:
        """Who listens at the socket; None for nobody. Connects once, and says nothing.

        OSError when that cannot be told: it hangs and takes no more connections, or is not ours.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(CONNECT)
            try:
                with_address(str(path), connection.connect)
                raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
                pid = UCRED.unpack(raw)[0]
                return cls(pid, os.pidfd_open(pid))
            except (ConnectionRefusedError, FileNotFoundError, ProcessLookupError):
                return None

    def fileno(self) -> int:
        """For select: readable once the process has ended."""
        return self._pidfd

    def gone(self) -> bool:
        """Whether the process has ended."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Stop following it."""
        os.close(self._pidfd)


def identity(path: Path) -> tuple[int, int] | None:
    """What tells one life of a socket from the next, and survives its being renamed: inode and time
    of binding in nanoseconds. None when it is not there."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
