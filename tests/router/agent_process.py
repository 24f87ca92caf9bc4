"""The real agent as a child process, for tests."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import PATIENCE
from tests.conftest import until as until

from opsmesh.router import paths, spool, spool_state
from opsmesh.router.client import with_address

CODE = "import sys; from opsmesh.router.agent import main; sys.exit(main())"


class AgentProcess:
    """One agent; its log is a list of JSON objects."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("ab") as file:
            self._before = file.tell()
            self.process = subprocess.Popen([sys.executable, "-c", CODE], stderr=file)

    def log(self, event: str = "") -> list[dict[str, Any]]:
        """The lines written so far, all or those of one event."""
        lines = [json.loads(line) for line in self._log.read_bytes()[self._before :].splitlines()]
        return [line for line in lines if event in ("", line["event"])]

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(60)


@contextlib.contextmanager
def agent(home: Path, *, ready: bool = True) -> Iterator[AgentProcess]:
    """A running agent; `ready`: it has a broker and has checked the streams."""
    running = AgentProcess(home / "agent.log")
    try:
        until(lambda: running.process.poll() is not None or answers())
        if ready:
            until(lambda: running.log("broker.ready"))
            until(lambda: not spool.names(paths.spool_dir()))
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def answers() -> bool:
    """Whether somebody listens on the ingest socket."""
    try:
        Connection().close()
    except OSError:
        return False
    return True


class Connection:
    """A bare connection to the ingest socket."""

    def __init__(self, timeout: float = PATIENCE) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        try:
            with_address(paths.ingest_socket(), self.socket.connect)
        except OSError:
            self.socket.close()
            raise
        self._file = self.socket.makefile("rb")

    def send(self, *events: dict[str, Any] | bytes) -> None:
        """Each as a line; bytes as they stand."""
        self.socket.sendall(
            b"".join(e if isinstance(e, bytes) else json.dumps(e).encode() + b"\n" for e in events)
        )

    def answer(self) -> dict[str, Any]:
        """The next line of answer."""
        found: dict[str, Any] = json.loads(self._file.readline() or b'{"eof":true}')
        return found

    def ask(self, event: dict[str, Any]) -> dict[str, Any]:
        """One event and its answer."""
        self.send({**event, "_reply": True})
        return self.answer()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()


def agent_says() -> dict[str, Any]:
    """What the agent tells of itself, which may take it longer than a command waits for that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool_state, "PATIENCE", PATIENCE)
        facts = spool_state.ask_agent()
    assert facts is not None
    return facts


def spooled() -> list[dict[str, Any]]:
    """The events in the spool, in order."""
    folder = paths.spool_dir()
    return [
        json.loads(line)
        for name in spool.names(folder)
        for line in spool.read(f"{folder}/{name}")[0]
    ]


def wait_drained() -> None:
    """Until the spool is empty."""
    until(lambda: not spool.names(paths.spool_dir()))
