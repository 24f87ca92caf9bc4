"""An agent whose socket somebody else listens on, as systemd does: LISTEN_FDS."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.router.agent_process import CODE, until

from opsmesh.router import paths, spool_state
from opsmesh.router.client import Client

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
EVENT = b'{"topic":"mesh.component.started","source":"test","payload":{"component":"x"},"id":"%s"}'
_AS_SYSTEMD = """
import os, sys
if int(sys.argv[1]) != 3:
    os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=sys.argv[2] or str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[3]])
"""


@pytest.fixture
def listener(home: Path) -> Iterator[socket.socket]:
    """A socket that this test listens on, where agents have theirs."""
    paths.private_dir(paths.runtime_dir())
    made = socket.socket(socket.AF_UNIX)
    made.bind(paths.ingest_socket())
    made.listen()
    yield made
    made.close()


def started(listener: socket.socket, *, pid: str = "") -> subprocess.Popen[bytes]:
    """The real agent, given the socket as descriptor 3."""
    descriptor = listener.fileno()
    argv = [sys.executable, "-c", _AS_SYSTEMD, str(descriptor), pid, CODE]
    return subprocess.Popen(argv, pass_fds=[descriptor], stderr=subprocess.DEVNULL)


def sent(id: bytes) -> socket.socket:
    """A client that has written an event, and waits for nothing."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(paths.ingest_socket())
    client.sendall(EVENT % id + b"\n")
    return client


def answers() -> bool:
    """Whether an agent serves the socket; one that is about to, may not within its patience."""
    try:
        return spool_state.ask_agent() is not None
    except TimeoutError:
        return False


def spooled(id: str) -> bool:
    """Whether the event waits for the broker, which this test has none of."""
    files = Path(paths.spool_dir()).glob("*.spool")
    return any(id in file.read_text() for file in files)


def test_what_was_written_while_the_agent_was_down_is_served(listener: socket.socket) -> None:
    """An event that was written before the agent began, and hung up, is taken when it begins."""
    sent(ID.encode()).close()
    agent = started(listener)
    try:
        until(lambda: spooled(ID))
    finally:
        agent.kill()
        agent.wait()


def test_the_socket_stays_when_the_agent_ends(listener: socket.socket) -> None:
    """An agent that ends leaves the socket, and the next one takes what was written in between."""
    first = started(listener)
    until(answers)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    assert Path(paths.ingest_socket()).is_socket()
    sent(ID.encode()).close()
    second = started(listener)
    try:
        until(lambda: spooled(ID))
    finally:
        second.kill()
        second.wait()


def test_a_sender_that_gives_up_spools_and_the_event_is_one(listener: socket.socket) -> None:
    """While nobody serves the socket a client spools after its patience, under the event's id."""
    client = Client(timeout=0.2)
    answer = json.loads(client.deliver(EVENT % ID.encode(), ID))
    assert answer == {"ok": True, "id": ID, "spooled": True}


def test_another_process_s_socket_is_not_taken(listener: socket.socket, home: Path) -> None:
    """Where LISTEN_PID names somebody else the agent listens by itself."""
    before = Path(paths.ingest_socket()).stat().st_ino
    agent = started(listener, pid=str(os.getpid()))
    try:
        until(answers)
        assert Path(paths.ingest_socket()).stat().st_ino != before
    finally:
        agent.terminate()
        agent.wait(60)
