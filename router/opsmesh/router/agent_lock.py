"""The lock of the agent: one on a socket and a spool, whoever starts it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from opsmesh.router import paths
from opsmesh.router.errors import AlreadyRunning


@contextlib.contextmanager
def only_one(path: str) -> Iterator[None]:
    """Hold the lock while the body runs; AlreadyRunning when another process holds it.

    The kernel lets go of it however the process ends.
    """
    paths.private_dir(os.path.dirname(path))  # noqa: PTH120
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 32).strip()
            pid = int(holder) if holder.isdigit() else None
            raise AlreadyRunning("the agent", pid) from None
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
        yield
    finally:
        os.close(lock)
