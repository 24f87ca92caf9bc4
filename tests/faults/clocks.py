"""Clocks that jump: of Python processes by libfaketime, of the broker by answering its system call.

nats-server is a static Go program: no library can be put in front of it, and a time namespace moves
only the clocks that count from the start. See `broker_clock` for what can be done.
"""

from __future__ import annotations

from pathlib import Path

import pytest

#: Where Debian and Fedora keep it, for one thread or many.
LIBRARIES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
)
HOUR = 3600


class Clock:
    """The wall clock of processes that are started with `env`; monotonic time stays true."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.jump(0)

    def jump(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        new.replace(self._file)


@pytest.fixture
def clock(memory: Path) -> Clock:
    """Skips without libfaketime."""
    for pattern in LIBRARIES:
        for found in Path("/").glob(pattern.removeprefix("/")):
            return Clock(memory / "clock", found)
    pytest.skip("libfaketime is not installed (Debian: faketime)")
