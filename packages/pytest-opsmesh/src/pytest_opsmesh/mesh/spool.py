"""Writes to the spool, as opsmesh.router.spool reads it: a file is whole and on disk, or not there.

A spool that is full is respected, and what is lost to it is counted where the agent tells of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path

from . import clock
from .events import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: The unit in which the spool is measured.
BLOCK = 4096


class Full(Exception):  # noqa: N818, RUF100 (a state, as queue.Full is)
    """The spool took nothing, and its losses were counted."""


class Spool:
    """The spool of this user's mesh, for one source."""

    def __init__(self, source: str) -> None:
        self.folder = state_dir() + "/spool"
        self._source = source
        self._files = 0

    def write(self, lines: Sequence[bytes]) -> None:
        """One file of these lines. Full, or OSError: they are not kept."""
        folder = self._made()
        self._files += 1
        name = f"{clock.now_ns():020d}-{os.getpid()}-{self._files}.spool"
        # the end is the count
        data = b"".join(_record(line) for line in [*lines, b"=%d" % len(lines)])
        used, limit, policy = _room(self.folder)
        blocks = -(-len(data) // BLOCK)
        if used + blocks * BLOCK > limit and policy != "drop_oldest":
            self.count_lost(lines, policy, name=name)
            raise Full(f"the spool is full: {used} bytes of spool.max_bytes {limit}")
        temporary = folder / f".{name}"
        with open(temporary, "xb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / name)
        _sync(self.folder)
        with contextlib.suppress(OSError), open(folder / ".used", "ab", opener=_private) as gauge:
            gauge.write(bytes(blocks))

    def count_lost(self, lines: Sequence[bytes], reason: str, *, name: str = "") -> None:
        """What nobody keeps is in the spool's log of losses, for the agent to tell."""
        self._made()
        moment = now()
        loss = {
            "source": self._source,
            "events": len(lines),
            "bytes": sum(map(len, lines)),
            "reasons": [reason],
            "from_time": moment,
            "to_time": moment,
        }
        name = name or f"{clock.now_ns():020d}-{os.getpid()}-lost"
        entry = {"name": name, "losses": [loss]}
        with open(f"{self.folder}/dropped.log", "ab", opener=_private) as file:
            file.write(b"\n" + _record(json.dumps(entry).encode()))
            file.flush()
            os.fsync(file.fileno())

    def _made(self) -> Path:
        return private_dir(Path(self.folder))


def private_dir(folder: Path) -> Path:
    """The folder, made with those above it for its owner alone where it is missing."""
    for one in (*reversed(folder.parents), folder):
        if not one.is_dir():
            one.mkdir(mode=0o700, exist_ok=True)
    return folder


def state_dir() -> str:
    """The mesh's state folder, after the XDG base directory specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (state if state.startswith("/") else str(Path.home() / ".local/state")) + "/opsmesh"


def runtime_dir() -> str:
    """The mesh's runtime folder, where the agent listens."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return runtime + "/opsmesh" if runtime.startswith("/") else state_dir() + "/run"


def _record(line: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(line), line)


def _room(spool: str) -> tuple[int, int, str]:
    """Bytes in the spool, how many it may hold, and what happens to more (ADR 0012)."""
    used, limit, policy = 0, 1 << 30, "refuse"
    with contextlib.suppress(OSError):
        used = Path(spool, ".used").stat().st_size * BLOCK
    with contextlib.suppress(OSError, ValueError):
        size, policy = Path(spool, ".limits").read_text().split()
        limit = int(size)
    return used, limit, policy


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
