"""A socket that systemd listens on for us: sd_listen_fds(3). Standard library only.

The one rule: such a socket is not ours to bind, to unlink or to change. It stays when we end, and
who connects meanwhile waits in its queue.
"""

from __future__ import annotations

import os
import socket
from typing import Final

#: The first descriptor that is passed.
FIRST: Final = 3
#: What says whose the descriptors are, and how many; a child of ours must not take them for its.
VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def listener() -> socket.socket | None:
    """The UNIX socket that this process was started for; None when it was started otherwise.

    It can be taken once: what tells of it is taken out of the environment.
    """
    pid, count = os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS", "")
    if pid != str(os.getpid()) or not count.isdigit():
        return None
    for name in VARIABLES:
        os.environ.pop(name, None)
    found = None
    for descriptor in range(FIRST, FIRST + int(count)):
        os.set_inheritable(descriptor, False)
        if found is None and _listens(descriptor):
            found = socket.socket(fileno=descriptor)
    return found


def _listens(descriptor: int) -> bool:
    """A stream socket of ours may stand among others: a unit's drop-in can add what it likes."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as one:
            return (
                one.family == socket.AF_UNIX
                and one.type == socket.SOCK_STREAM
                and bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            )
    except OSError:
        return False
