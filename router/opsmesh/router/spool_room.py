"""How much the spool may hold, and how much it holds: the limits and the gauge, two small files.

The one rule: no lock, and no look at every file. The gauge is a file whose length is the number of
blocks in the spool. Whoever writes appends to it, which the kernel makes atomic; only the agent
makes it shorter. So a writer knows in a few system calls whether there is room, and the agent
whether anybody has written since it last looked.
Standard library's smallest parts only: `opsmesh emit` imports this module.
"""

from __future__ import annotations

import errno
import os

#: Bytes that a file takes at least on disk, and the gauge's unit.
BLOCK = 4096
#: What the spool may hold unless the settings say otherwise.
MAX_BYTES = 1 << 30
#: What happens to an event for which there is no room. `refuse`: its caller gets an error, and
#: still has it. `drop_oldest`, `drop_newest`: one is lost, and counted (`losses`).
POLICIES = ("refuse", "drop_oldest", "drop_newest")
REFUSE, DROP_OLDEST, DROP_NEWEST = POLICIES
#: Names of the two files, in the spool.
LIMITS, GAUGE = ".limits", ".used"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Limits(NamedTuple):
        """What the user has set; a plain pair at run time."""

        max_bytes: int
        when_full: str


class Full(OSError):
    """The spool holds all that it may."""

    def __init__(self, used: int, limit: int) -> None:
        super().__init__(
            errno.EDQUOT,
            f"the spool is full: {used} bytes of spool.max_bytes {limit}; see: opsmesh spool ls",
        )
        self.used = used
        self.limit = limit

    def __str__(self) -> str:
        return str(self.strerror)


def limits(spool_dir: str) -> tuple[int, str]:
    """The limit in bytes and the policy, as the agent has written them; else the defaults."""
    try:
        file = os.open(f"{spool_dir}/{LIMITS}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            size, policy = os.read(file, 100).decode().split()
        finally:
            os.close(file)
        if policy in POLICIES and int(size) > 0:
            return int(size), policy
    except (OSError, ValueError):
        pass
    return MAX_BYTES, REFUSE


def set_limits(spool_dir: str, max_bytes: int, when_full: str) -> None:
    """Tell every writer, also those that know no settings: an `emit` while no agent runs."""
    path = f"{spool_dir}/{LIMITS}"
    new = f"{path}.{os.getpid()}"
    with open(new, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(f"{max_bytes} {when_full}\n")
    os.replace(new, path)  # noqa: PTH105


def blocks(size: int) -> int:
    """A size in blocks, rounded up."""
    return -(-size // BLOCK)


class Gauge:
    """The gauge, open. When it cannot be opened or written, the spool goes on without a bound: an
    event is worth more than the count of its bytes."""

    def __init__(self, spool_dir: str) -> None:
        self._dir = spool_dir
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(f"{spool_dir}/{GAUGE}", flags, 0o600)
        except OSError:
            self._file = -1

    def has_room(self, size: int) -> bool:
        """Whether a file of `size` bytes may be added. Nothing is reserved: writers at the same
        moment may exceed the limit by their own files."""
        max_bytes, _ = limits(self._dir)
        return self.used + blocks(size) * BLOCK <= max_bytes

    @property
    def used(self) -> int:
        """Bytes in the spool, in whole blocks."""
        return 0 if self._file < 0 else os.fstat(self._file).st_size * BLOCK

    @property
    def age(self) -> float:
        """Seconds since it was changed."""
        import time

        return 0.0 if self._file < 0 else time.time() - os.fstat(self._file).st_mtime

    @property
    def untouched(self) -> bool:
        """Whether nobody has written since the last `set(0)`; False when it was removed, and
        nobody can say."""
        if self._file < 0:
            return False
        found = os.fstat(self._file)
        return found.st_size == 0 and found.st_nlink == 1

    def add(self, size: int) -> None:
        """A file of this size has been put into the spool."""
        try:
            if self._file >= 0:
                os.write(self._file, bytes(blocks(size)))
        except OSError:  # a full disk; the file itself is there
            pass

    def sub(self, size: int) -> None:
        """A file of this size has left. A writer at this very moment may go uncounted, until the
        agent counts again."""
        self.set(self.used - blocks(size) * BLOCK)

    def set(self, size: int) -> None:
        """What was counted file by file."""
        try:
            if self._file >= 0:
                os.ftruncate(self._file, blocks(max(0, size)))
                os.utime(self._file)
        except OSError:
            pass

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
