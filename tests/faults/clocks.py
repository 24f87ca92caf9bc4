"""Clocks that jump: of Python processes by libfaketime, of the broker by answering its system call.

nats-server is a static Go program: no library can be put in front of it, and a time namespace moves
only the clocks that count from the start. See `broker_clock` for what can be done.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from opsmesh.router import server
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from tests.faults import broker_clock
from tests.faults.meshes import Mesh

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
def clock(home: Path) -> Clock:
    """Skips without libfaketime."""
    for pattern in LIBRARIES:
        for found in Path("/").glob(pattern.removeprefix("/")):
            return Clock(home / "clock", found)
    pytest.skip("libfaketime is not installed (Debian: faketime)")


class BrokerClock:
    """The wall clock of a broker; see `broker_clock`."""

    def __init__(self, mesh: Mesh) -> None:
        self._file = mesh.home / "broker-clock"
        self.jump(0)
        asks = broker_clock.patched(server.find_binary(), mesh.home)
        if asks is None:
            pytest.skip("this nats-server takes the time in a way that is not known here")
        binary = broker_clock.launcher(asks, self._file, mesh.home)
        prepared = server.prepare(mesh.state, name=Settings().host)
        mesh.broker = EmbeddedServer(prepared, binary=binary)

    def jump(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds * 10**6))
        new.replace(self._file)


@pytest.fixture
def broker_time(fault: Mesh) -> BrokerClock:
    """Skips where no system call can be answered for another process."""
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if os.geteuid() != 0 or platform.machine() != "x86_64":
        pytest.skip("a broker's clock can be moved by root on x86_64")
    if not actions.exists() or "user_notif" not in actions.read_text().split():
        pytest.skip("this kernel cannot hand system calls to another process")
    return BrokerClock(fault)
