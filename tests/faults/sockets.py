"""A network whose sockets hold little, as those of a link that is cut do.

On loopback the kernel takes megabytes for a program that reads nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.spread.namespaces import missing

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET, of <sched.h>; os.unshare is in Python 3.12 first
#: Least, first and most bytes of a socket's buffer.
SMALL: Final = "4096 8192 16384"


@contextlib.contextmanager
def small_sockets() -> Iterator[None]:
    """For this thread, and for the processes and threads that it starts while the body runs."""
    if why := missing():
        pytest.skip(why)
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert libc.unshare(_NEW_NETWORK) == 0, os.strerror(ctypes.get_errno())
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for name in ("tcp_wmem", "tcp_rmem"):
            Path("/proc/sys/net/ipv4", name).write_text(SMALL)
        yield
    finally:
        libc.setns(before, _NEW_NETWORK)
        os.close(before)
