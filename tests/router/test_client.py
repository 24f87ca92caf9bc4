"""The client: the agent's answer, or the spool; never neither."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import PATIENCE

from opsmesh.router import paths, spool
from opsmesh.router.client import MAX_ADDRESS, Client, with_address

LINE = b'{"topic":"a.b","id":"one","_reply":true}'


class Agent:
    """Something that listens on the socket and answers each line by a function."""

    def __init__(self, path: str, answer: Callable[[bytes], bytes | None]) -> None:
        self.lines: list[bytes] = []
        self.connections = 0
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with_address(path, self._listener.bind)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection, connection.makefile("rb") as file:
                for line in file:
                    self.lines.append(line)
                    answer = self._answer(line)
                    if answer is None:
                        break
                    with contextlib.suppress(BrokenPipeError):
                        connection.sendall(answer)

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            self._listener.close()
        self._thread.join(60)


@pytest.fixture
def listen(home: Path) -> Iterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def start(answer: Callable[[bytes], bytes | None], path: str = "") -> Agent:
        agents.append(Agent(path or paths.ingest_socket(), answer))
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


def spooled() -> list[bytes]:
    return [
        line
        for name in spool.names(paths.spool_dir())
        for line in spool.read(f"{paths.spool_dir()}/{name}")[0]
    ]


def test_the_answer_of_the_agent_is_returned(listen: Callable[..., Agent]) -> None:
    """One line goes in, the agent's line comes back, on one kept connection."""
    agent = listen(lambda line: b'{"ok":true,"id":"one","seq":7}\n')
    client = Client(timeout=PATIENCE)
    for _ in range(3):
        assert client.deliver(LINE, "one") == b'{"ok":true,"id":"one","seq":7}'
    client.close()
    assert agent.lines == [LINE + b"\n"] * 3
    assert agent.connections == 1
    assert spooled() == []


def test_without_an_agent_the_event_is_spooled(home: Path) -> None:
    """No socket: the event lies in the spool, and the answer says so."""
    assert Client().deliver(LINE, "one") == b'{"ok":true,"id":"one","spooled":true}'
    assert spooled() == [LINE]


def test_a_stale_socket_is_no_agent(listen: Callable[..., Agent]) -> None:
    """A socket file that nobody listens on leads to the spool."""
    listen(lambda line: None).close()
    assert Path(paths.ingest_socket()).exists()
    assert b"spooled" in Client().deliver(LINE, "one")
    assert spooled() == [LINE]


def test_a_broken_connection_is_made_anew(listen: Callable[..., Agent]) -> None:
    """An agent that was restarted gets the event on a new connection."""
    answers = iter([b"1\n", None, b"2\n"])
    agent = listen(lambda line: next(answers))
    client = Client(timeout=PATIENCE)
    assert client.deliver(LINE, "one") == b"1"
    assert client.deliver(LINE, "one") == b"2"
    client.close()
    assert agent.connections == 2
    assert spooled() == []


def test_an_agent_that_hangs_up_twice_leads_to_the_spool(listen: Callable[..., Agent]) -> None:
    """An event that is taken but not answered is spooled: better twice than never."""
    listen(lambda line: None)
    assert b"spooled" in Client().deliver(LINE, "one")
    assert spooled() == [LINE]


def test_an_agent_that_hangs_leads_to_the_spool(listen: Callable[..., Agent]) -> None:
    """No answer in time: the event is spooled, and a late answer is not taken for the next."""
    release = threading.Event()

    def answer(line: bytes) -> bytes:
        if b"slow" in line:
            release.wait(60)
        return line

    listen(answer)
    client = Client(timeout=0.05)
    assert b"spooled" in client.deliver(b'{"id":"slow"}', "slow")
    release.set()
    client.timeout = 60
    assert client.deliver(b'{"id":"next"}', "next") == b'{"id":"next"}'
    client.close()


def test_a_socket_deep_in_the_file_system_is_reached(
    listen: Callable[..., Agent], home: Path
) -> None:
    """A path longer than a socket address works like any other."""
    path = str(home / ("d" * 60) / ("e" * 60) / "ingest.sock")
    assert len(path) > MAX_ADDRESS
    listen(lambda line: b"yes\n", path)
    client = Client(socket_path=path, timeout=PATIENCE)
    assert client.deliver(LINE, "one") == b"yes"
    client.close()


def test_a_spool_that_cannot_be_written_is_an_error(home: Path) -> None:
    """Neither agent nor spool: OSError, never a silent loss."""
    (home / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        Client(spool_dir=str(home / "file" / "spool")).deliver(LINE, "one")
