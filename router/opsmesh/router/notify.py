"""Readiness as systemd has it, sd_notify(3): a component says READY=1 on the socket that
`NOTIFY_SOCKET` names. Under our own supervisor or under systemd, it is the same line.
"""

from __future__ import annotations

import contextlib
import os
import socket

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
    """The supervisor's end of one component's socket.

    An abstract address: it leaves no file behind, and a long path of the runtime folder (a socket's
    name ends at 107 bytes) does not matter.
    """

    def __init__(self, name: str) -> None:
        self.address = f"@opsmesh-{os.getpid()}-{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + self.address[1:])

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
