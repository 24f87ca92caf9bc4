"""A stand-in for the agent: a real UNIX socket that speaks the ingest protocol and keeps events."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.conftest import PATIENCE
from tests.conftest import until as until

from opsmesh.router import spool

#: What the kernel says of who is at the other end: struct ucred (unix(7)).
CREDENTIALS = struct.Struct("3i")


class StandInAgent:
    """Answers each line; `hang`: takes lines and says nothing; `refuse`: answers with an error;
    `known`: ids that the broker has already; `kills_at`: whoever sends the event of this number is
    sent `kills_with` before it has an answer."""

    def __init__(self, path: Path, *, hang: bool = False, refuse: str = "") -> None:
        self.events: list[dict[str, Any]] = []
        self.known: set[str] = set()
        self.kills_at, self.kills_with = 0, signal.SIGKILL
        self._hang, self._refuse = hang, refuse
        self._changed = threading.Condition()
        self._open: list[socket.socket] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(16)
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def wait_for(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The events, once they are `enough`; fails when it stays away."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: enough(self.events), PATIENCE)
            assert arrived, [event["topic"] for event in self.events]
            return list(self.events)

    def close(self) -> None:
        # closed alone, they would stay open for who waits for them in `_accept` and `_serve`
        self._server.shutdown(socket.SHUT_RDWR)
        self._accepting.join()  # none is let in any more
        self._server.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _kill(self, connection: socket.socket) -> None:
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        os.kill(CREDENTIALS.unpack(told)[0], self.kills_with)

    def _serve(self, connection: socket.socket) -> None:
        # a producer that is stopped resets the connection: its last event may lack its answer
        with contextlib.suppress(OSError), connection.makefile("rwb") as stream:
            for number, line in enumerate(stream, 1):
                if self._hang:
                    if number == self.kills_at:
                        self._kill(connection)
                    continue
                try:
                    event = msgspec.json.decode(line)  # as strict as the agent is
                except msgspec.DecodeError as error:
                    stream.write(json.dumps({"ok": False, "error": str(error)}).encode() + b"\n")
                    stream.flush()
                    continue
                if "topic" not in event:  # a request, not an event
                    stream.write(b'{"ok":false,"error":"a stand-in"}\n')
                    stream.flush()
                    continue
                answer = {"ok": True, "id": event["id"], "seq": len(self.events) + 1}
                if event["id"] in self.known:
                    answer["duplicate"] = True
                if self._refuse:
                    answer = {"ok": False, "error": self._refuse}
                with self._changed:
                    self.events.append(event)
                    self._changed.notify_all()
                if len(self.events) == self.kills_at:
                    self._kill(connection)
                    return
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()


@contextmanager
def standing_in(home: Path, *, hang: bool = False, refuse: str = "") -> Iterator[StandInAgent]:
    """A stand-in agent on the ingest socket of the mesh in `home`."""
    agent = StandInAgent(home / "run/opsmesh/ingest.sock", hang=hang, refuse=refuse)
    try:
        yield agent
    finally:
        agent.close()


def spooled(home: Path) -> list[dict[str, Any]]:
    """The events in the spool, every checksum verified."""
    folder = home / "state/opsmesh/spool"
    events: list[dict[str, Any]] = []
    # a name with a dot in front is still being written
    for path in sorted(folder.glob("[!.]*.spool")) if folder.is_dir() else ():
        good, corrupt = spool.read(str(path))
        assert not corrupt
        events += [msgspec.json.decode(line) for line in good]
    return events
