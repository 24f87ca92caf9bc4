"""A stand-in for Hyprland: its two sockets in its folders, but no compositor. No Hyprland can be
had here, so what the producer is shown is replayed: from the fixture, which was written by hand
after Hyprland's source, and from generated lines."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.producers.agent import until

#: Events that may wait for a client until it is dropped (CUnixImpl::send, src/ipc/s2/Unix.cpp).
QUEUED = 64


def monitor(name: str, *, id: int = 0, workspace: str = "1", **facts: Any) -> dict[str, Any]:
    """One monitor as `j/monitors` tells it (getMonitorData, src/ipc/s1/Commands.cpp)."""
    told = {
        "id": id,
        "name": name,
        "description": f"Maker {name}",
        "width": 1920,
        "height": 1080,
        "refreshRate": 60.0,
        "x": 0,
        "y": 0,
        "activeWorkspace": {"id": int(workspace), "name": workspace},
        "specialWorkspace": {"id": 0, "name": ""},
        "scale": 1.0,
        "transform": 0,
        "focused": id == 0,
    }
    return {**told, **facts}


class StandInCompositor:
    """One instance, alive until `close` or `crash`. `silent`: takes questions, never answers."""

    def __init__(
        self, runtime: Path, signature: str, monitors: Sequence[dict[str, Any]], *, pid: int = 0
    ) -> None:
        self.folder = runtime / "hypr" / signature
        self.folder.mkdir(parents=True)
        self.monitors = list(monitors)
        self.errors: list[str] = []
        self.silent = False
        self.asked: list[str] = []
        self.dropped = 0
        self._clients: list[tuple[socket.socket, deque[bytes]]] = []
        self._questions = self._listen(".socket.sock")
        self._events = self._listen(".socket2.sock")
        (self.folder / "hyprland.lock").write_text(f"{pid or os.getpid()}\nwayland-1\n")
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._answer, daemon=True).start()

    def joined(self) -> None:
        """Return once somebody listens to the events."""
        until(lambda: bool(self._clients))

    def send(self, *lines: bytes) -> None:
        """Post events as the compositor does: never waits, and drops who does not keep up."""
        for line in lines:
            for client in list(self._clients):
                queue = client[1]
                if len(queue) >= QUEUED:
                    self.dropped += 1
                    self._drop(client)
                    continue
                queue.append(line + b"\n")
                self._flush(client)

    def flush(self) -> None:
        """What a writable client gets from the compositor's loop."""
        until(lambda: all(self._flush(client) for client in list(self._clients)))

    def drop(self) -> None:
        """End every connection, as for one that did not keep up."""
        for client in list(self._clients):
            self._drop(client)

    def close(self) -> None:
        """A clean end: the lock file goes, the folder stays."""
        self.crash()
        (self.folder / "hyprland.lock").unlink()

    def crash(self) -> None:
        """The sockets end; everything in the folder stays."""
        for server in (self._questions, self._events):
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self.drop()

    def _flush(self, client: tuple[socket.socket, deque[bytes]]) -> bool:
        connection, queue = client
        while queue:
            try:
                sent = connection.send(queue[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                self._drop(client)
                return True
            queue[0] = queue[0][sent:]
            if not queue[0]:
                queue.popleft()
        return True

    def _drop(self, client: tuple[socket.socket, deque[bytes]]) -> None:
        self._clients.remove(client)
        client[0].close()

    def _listen(self, name: str) -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(self.folder / name))
        server.listen(10)
        return server

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._clients.append((self._events.accept()[0], deque()))

    def _answer(self) -> None:
        kept = []
        with suppress(OSError):
            while True:
                connection, _ = self._questions.accept()
                if self.silent:
                    kept.append(connection)
                    continue
                with connection, suppress(OSError):
                    question = connection.recv(4096).decode()
                    told = self.monitors if question == "j/monitors" else self.errors
                    connection.sendall(json.dumps(told).encode())
                    # once it is answered: who waits for it here changes what is told next
                    self.asked.append(question)


@contextmanager
def running(
    home: Path, signature: str, monitors: Sequence[dict[str, Any]]
) -> Iterator[StandInCompositor]:
    """A stand-in compositor in the runtime folder of `home`."""
    compositor = StandInCompositor(home / "run", signature, monitors)
    try:
        yield compositor
    finally:
        compositor.crash()
