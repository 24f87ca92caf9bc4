"""Other processes of this machine, as /proc shows them.

A process is known by its pid *and* its start time, which no other one of the same boot shares. A
pid means what it means here only within `boot()`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from os import stat_result
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
#: States of a process that does nothing any more, and only waits to be reaped.
_ENDED: Final = (b"Z", b"X")


@dataclass(frozen=True, kw_only=True)
class Proc:
    """One process. `start` is in clock ticks since boot, `group` its process group."""

    pid: int
    start: int
    group: int


def proc(pid: int) -> Proc | None:
    """A process of this pid namespace; None when there is none, or none that still runs."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # the name, in parentheses, may hold anything
    fields = text.rpartition(b")")[2].split()
    if fields[0] in _ENDED:
        return None
    return Proc(pid=pid, start=int(fields[19]), group=int(fields[2]))


def procs() -> Iterator[Proc]:
    """Every process that runs."""
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (found := proc(int(entry.name))) is not None:
            yield found


def has_open(pid: int, wanted: stat_result) -> bool:
    """Whether a process has this file open; False also when that must not be known."""
    with contextlib.suppress(OSError):  # another user's, or gone
        for entry in (PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                # the link first: to look at a file of a strange file system may hang
                if entry.readlink().is_absolute():
                    there = entry.stat()
                    if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
                        return True
    return False


@functools.cache
def boot() -> str:
    """This boot of this kernel, and this pid namespace."""
    kernel = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{kernel}/{(PROC / 'self/ns/pid').readlink()}"
