"""Readiness as systemd has it, sd_notify(3): a component says READY=1 on the socket that
`NOTIFY_SOCKET` names. Under our own supervisor or under systemd, it is the same line.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

#: The variable that names the socket; an abstract one begins with `@`.
VARIABLE = "NOTIFY_SOCKET"


def ready() -> None:
    """Tell whoever supervises this process that it does its work now; nobody does: nothing."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", address)


class Listener:
    """The supervisor's end of one component's socket."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self.address = str(path)

    def heard(self) -> bool:
        """Whether READY=1 has come since the last question."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                found = b"READY=1" in self._socket.recv(4096) or found
        return found

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
        Path(self.address).unlink(missing_ok=True)
