"""A client of the agent: one JSON line to the ingest socket, or to the spool without an agent.

The one rule: `deliver` returns only when the event is safe, or was refused for a stated reason.
Standard library's smallest parts only: `opsmesh emit` and producers inside strangers' processes
import this module.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as Socket

from opsmesh.router import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds to wait for the agent's answer. The agent itself spools what the broker does not
#: acknowledge in less, so that only an agent that hangs is given up.
TIMEOUT = 2.0
#: What is said of an event that was let go of; as `errors.SpoolDropped` says it.
DROPPED = b"dropped, and counted: the spool is full (spool.when_full: drop_newest)"
#: The longest path that fits into a UNIX socket's address (Linux: 108 bytes with the final zero).
MAX_ADDRESS = 107


class Client:
    """Keeps its connection; for one thread, and one process: a fork makes its own.

    `socket_path` and `spool_dir` are those of the environment unless given.
    """

    def __init__(
        self,
        *,
        socket_path: str | None = None,
        spool_dir: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.socket_path = socket_path or paths.ingest_socket()
        self.spool_dir = spool_dir or paths.spool_dir()
        self.timeout = timeout
        self._socket: Socket | None = None
        self._pid = 0

    def deliver(self, line: bytes, id: str) -> bytes:
        """The answer to one event, a JSON object with `id` and `"_reply":true`.

        It is the agent's, or `{"ok":true,"id":…,"spooled":true}` once the event is in the spool, or
        `{"ok":false,"id":…,"dropped":true,"error":…}`: the spool is full, and the user lets go of
        new events (`spool.when_full: drop_newest`), which are counted.
        An event that the agent has taken but not answered is spooled as well: its id makes the
        broker drop the second one. OSError when the spool cannot be written either, or is full.
        """
        # A raw line break inside JSON is white space, never part of a value.
        line = line.strip().replace(b"\r", b" ").replace(b"\n", b" ")
        answer = self._ask(line + b"\n")
        if answer is not None:
            return answer
        from opsmesh.router import spool  # a fifth of emit's own time, and rarely needed

        if not spool.write(self.spool_dir, [line]):
            return b'{"ok":false,"id":"%s","dropped":true,"error":"%s"}' % (id.encode(), DROPPED)
        return b'{"ok":true,"id":"%s","spooled":true}' % id.encode()

    def close(self) -> None:
        """End the connection; the next `deliver` makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, request: bytes) -> bytes | None:
        if self._socket is not None and self._pid != os.getpid():
            self.close()  # the parent's connection: its answers are not ours
        while True:
            kept = self._socket is not None
            try:
                return self._exchange(request)
            except TimeoutError:
                self.close()  # a late answer must not be taken for the next one's
                return None
            except OSError:
                self.close()
                if not kept:
                    return None
                # the agent was restarted since the last event: once more, on a new connection
            except BaseException:
                self.close()
                raise

    def _exchange(self, request: bytes) -> bytes:
        if self._socket is None:
            self._socket = self.connect()
            self._pid = os.getpid()
        self._socket.sendall(request)
        answer = b""
        while not answer.endswith(b"\n"):
            part = self._socket.recv(65536)
            if not part:
                raise ConnectionResetError("the agent closed the connection")
            answer += part
        return answer[:-1]

    def connect(self) -> Socket:
        """A connection to the agent, for whoever speaks with it otherwise; OSError."""
        connection = Socket(AF_UNIX, SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            with_address(self.socket_path, connection.connect)
        except BaseException:
            connection.close()
            raise
        return connection


def with_address(path: str, call: Callable[[str], object]) -> None:
    """Connect or bind to a UNIX socket, however long its path is."""
    if len(os.fsencode(path)) <= MAX_ADDRESS:
        call(path)
        return
    folder_path, _, name = path.rpartition("/")
    folder = os.open(folder_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{folder}/{name}")
    finally:
        os.close(folder)
