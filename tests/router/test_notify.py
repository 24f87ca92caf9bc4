"""What a component tells its supervisor, on a real datagram socket: ready, and alive."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import freeze
from tests.router.agent_process import AgentProcess, until

from opsmesh.router import paths, server

#: Microseconds that systemd would wait for a beat.
PATIENCE = 300_000


class Manager:
    """A stand-in for systemd's end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(60)

    def hears(self, text: str) -> None:
        """Wait for this message."""
        while self.socket.recv(4096).decode() != text:
            pass

    def silent_for(self, seconds: float) -> bool:
        """Whether nothing comes."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(60)
        return False

    def forget(self) -> None:
        """Drop what has come so far."""
        self.socket.setblocking(False)
        try:
            while True:
                self.socket.recv(4096)
        except BlockingIOError:
            self.socket.settimeout(60)


@pytest.fixture
def manager(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Every process of this test is told to give signs of life to this socket."""
    made = Manager(home / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(home / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", str(PATIENCE))
    yield made
    made.socket.close()


def test_the_agent_is_ready_and_then_alive(manager: Manager, home: Path) -> None:
    """The agent says that it listens, and gives signs of life as long as its loop runs."""
    running = AgentProcess(home / "agent.log")
    try:
        manager.hears("READY=1")
        manager.hears("WATCHDOG=1")
        freeze(running.process)
        manager.forget()
        assert manager.silent_for(2 * PATIENCE / 1e6)
        running.process.send_signal(signal.SIGCONT)
        manager.hears("WATCHDOG=1")
    finally:
        running.kill()


@pytest.mark.parametrize("module", ["opsmesh.handlers.serve", "opsmesh.handlers.evidence.sink"])
def test_who_waits_for_a_broker_asks_for_time(manager: Manager, module: str) -> None:
    """Handlers and a sink that wait for their broker are not ready, and ask for more time."""
    server.prepare(Path(paths.state_dir()), name="test")  # known, and away
    with subprocess.Popen([sys.executable, "-m", module], stderr=subprocess.DEVNULL) as process:
        try:
            manager.hears(f"EXTEND_TIMEOUT_USEC={PATIENCE}")
        finally:
            process.kill()


def test_a_producer_beats_from_its_main_thread(manager: Manager) -> None:
    """A producer is ready, and alive as long as its main thread can take a step."""
    code = (
        "from opsmesh.producers import host\n"
        "class Waiting:\n"
        "    name, description, topics = 'waiting', '', ()\n"
        "    def available(self): return None\n"
        "    def run(self, emit): import time; time.sleep(100)\n"
        "host.run(Waiting())"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            manager.hears("READY=1")
            manager.hears("WATCHDOG=1")
            freeze(process)
            manager.forget()
            assert manager.silent_for(2 * PATIENCE / 1e6)
        finally:
            process.kill()


def test_a_producer_that_is_told_to_end_ends_well(manager: Manager) -> None:
    """No sign of life that is due while a producer ends, however long that takes, ends it first."""
    code = (
        "import time\n"
        "from opsmesh.producers import host\n"
        "class Slow:\n"
        "    name, description, topics = 'slow', '', ()\n"
        "    def available(self): return None\n"
        "    def run(self, emit): time.sleep(100)\n"
        "    def __del__(self, sleep=time.sleep): sleep(0.5)\n"
        "slow = Slow()\n"
        "host.run(slow)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        manager.hears("WATCHDOG=1")
        process.terminate()
        assert process.wait(60) == 0


def test_a_watchdog_of_another_process_is_not_ours(
    manager: Manager, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who inherits the variables of its parent's watchdog gives no sign of life in its name."""
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    running = AgentProcess(home / "agent.log")
    try:
        manager.hears("READY=1")
        assert manager.silent_for(2 * PATIENCE / 1e6)
    finally:
        running.kill()


def test_what_systemd_gave_the_supervisor_is_not_for_components(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that systemd started passes neither its watchdog nor its sockets on."""
    from opsmesh.router import component

    given = {"NOTIFY_SOCKET": "@no", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "LISTEN_FDS": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    code = "import os; print(sorted({*os.environ} & {'NOTIFY_SOCKET', 'WATCHDOG_USEC', "
    code += "'WATCHDOG_PID', 'LISTEN_FDS'}))"
    one = component.Component(name="one", argv=[sys.executable, "-c", code])
    assert component.spawn(one).wait(60) == 0
    until(lambda: one.log.read_text() == "[]\n")
