"""Events on their way: to the agent without waiting, and to the spool where that fails.

What is sent waits here for the agent's answer. What has none when the process ends, or when there
is no agent, goes to the spool under the same id: the broker drops the second copy. Nothing here
blocks but a write to the spool, once in PAUSE seconds, and `finish`, for ANSWERS seconds at most.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket

from . import clock, spool

#: Seconds that `finish` may wait for the agent's answers, in all.
ANSWERS = 1.0
#: Seconds between two writes to the spool, or tries to reach an agent.
PAUSE = 1.0
#: Bytes that may wait for answers: with more, the agent hangs, and the spool takes them.
MAX_WAITING = 8 * 2**20
#: Bytes of answers read at once.
CHUNK = 64 * 1024


class Outbox:
    """The events of one process, for one thread at a time. A process that was forked off sends
    none of them: the one that made them does."""

    def __init__(self, source: str) -> None:
        self._spool = spool.Spool(source)
        self._socket_path = spool.runtime_dir() + "/ingest.sock"
        self._pid = os.getpid()
        self._socket: socket.socket | None = None
        self._unsent = bytearray()
        self._answers = bytearray()
        self._waiting: dict[str, bytes] = {}
        self._bytes = 0
        self._tried = float("-inf")
        self.sent = 0
        self.spooled = 0
        self.lost = 0
        self._unmade = 0
        self._noted = float("-inf")
        self.errors: list[str] = []

    def summary(self) -> str:
        """What became of the events, in one line."""
        text = f"{self.sent} sent, {self.spooled} spooled"
        return text if not self.lost else f"{text}, {self.lost} lost: {self.errors[0]}"

    def add(self, *events: tuple[str, bytes]) -> None:
        """Take events, ids and lines, and send what the socket takes without waiting."""
        if os.getpid() != self._pid:
            return
        for event_id, line in events:
            self._waiting[event_id] = line
            self._bytes += len(line)
            if self._socket is not None:
                self._unsent += line + b"\n"
        if self._bytes > MAX_WAITING:
            self._pump()
            if self._bytes > MAX_WAITING:
                self._close()
                self._to_spool()
                self._tried = clock.elapsed()
        if self._socket is None and clock.elapsed() - self._tried >= PAUSE:
            self._tried = clock.elapsed()
            self._connect()
            if self._socket is None:
                self._to_spool()
        self._pump()

    def broken(self, error: Exception, events: int = 1) -> None:
        """Count events that could not even be made: `opsmesh status` tells of them. It is written
        down once in PAUSE seconds, for a fault can be one of each event."""
        self._count(events, f"{type(error).__name__}: {error}")
        self._unmade += events
        if clock.elapsed() - self._noted >= PAUSE:
            self._note_unmade()

    def finish(self) -> None:
        """Collect answers for ANSWERS seconds at most; the spool takes what has none."""
        if os.getpid() != self._pid:
            return
        deadline = clock.elapsed() + ANSWERS
        if self._waiting and self._socket is None:
            self._connect()
        while self._waiting and self._socket is not None:
            left = deadline - clock.elapsed()
            if left <= 0:
                break
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            poll.poll(left * 1000)
            self._pump()
        self._close()
        self._to_spool(last=True)
        self._note_unmade()

    def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(self._socket_path)  # local: succeeds or fails at once
        except OSError:
            connection.close()
            return
        self._socket = connection
        self._unsent = bytearray(b"".join(line + b"\n" for line in self._waiting.values()))

    def _pump(self) -> None:
        if self._socket is None:
            return
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        self._receive(self._socket)

    def _receive(self, connection: socket.socket) -> None:
        ended = False
        try:
            while chunk := connection.recv(CHUNK):
                self._answers += chunk
            ended = True
        except BlockingIOError:
            pass
        except OSError:
            ended = True
        *lines, rest = bytes(self._answers).split(b"\n")
        self._answers = bytearray(rest)
        for line in lines:
            self._answered(line)
        if ended:
            self._close()

    def _answered(self, line: bytes) -> None:
        # answers come in the order of the requests, so the oldest one is meant
        answer = json.loads(line)
        event_id = next(iter(self._waiting), None)
        if event_id is None:
            return
        self._bytes -= len(self._waiting.pop(event_id))
        if answer.get("ok"):
            self.sent += 1
        else:
            self._count(1, str(answer.get("error")))

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._unsent.clear()
        self._answers.clear()

    def _to_spool(self, *, last: bool = False) -> None:
        if not self._waiting:
            return
        lines = list(self._waiting.values())
        try:
            self._spool.write(lines)
            self.spooled += len(lines)
        except spool.Full as full:
            self._count(len(lines), str(full))
        except OSError as error:
            if self._bytes <= MAX_WAITING and not last:
                return  # another time, perhaps
            self._count(len(lines), str(error))
        self._waiting.clear()
        self._bytes = 0

    def _note_unmade(self) -> None:
        if self._unmade:
            self._noted = clock.elapsed()
            with contextlib.suppress(OSError):
                self._spool.count_lost([b""] * self._unmade, "error")
            self._unmade = 0

    def _count(self, events: int, reason: str) -> None:
        self.lost += events
        self.errors.append(reason)
        del self.errors[10:]  # the first ones say most
