"""The ingest socket: one JSON object a line in, one line of answer out where it is asked for.

The one rule: answers come in the order of the requests on their connection. Nobody's mistake
reaches another connection. All share one budget of memory: while it is spent nothing is read, and
who sends feels it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import structlog

from opsmesh.router import paths
from opsmesh.router.budget import OVERHEAD, Budget
from opsmesh.router.client import with_address
from opsmesh.router.follow import ASKS_TO_FOLLOW, Followers
from opsmesh.router.metrics import figures

#: Longest line, in bytes; a longer one is answered with an error and skipped.
MAX_LINE: Final = 1024 * 1024
#: Requests of one connection that may be under way; beyond that it is not read from.
MAX_PENDING: Final = 1024
#: Connections that may wait to be accepted.
BACKLOG: Final = 256
#: Seconds for what is on its way into the socket when the agent ends, and for its answers.
GRACE, FAREWELL = 0.1, 3.0
#: Bytes read at a time.
CHUNK: Final = 256 * 1024
#: The line that asks how the agent is; it never waits for room.
ASKS_STATUS: Final = b'{"_status":true}'

#: An answer that is none: the connection is closed, so that its client keeps the event itself.
HANG_UP: Final = b""
#: Takes a line and gives the answer's line, HANG_UP, or None where no answer was asked for. The
#: line is cut off, and the second argument True, when it exceeds MAX_LINE.
Handle = Callable[[bytes, bool], Awaitable[bytes | None]]
_Answers = asyncio.Queue["asyncio.Task[bytes | None] | None"]

log = structlog.get_logger()


class Ingest:
    """Listens on one path while the agent runs. `listener`: a socket that systemd listens on, which
    stays when the agent ends."""

    def __init__(
        self,
        path: str,
        handle: Handle,
        *,
        budget: Budget | None = None,
        followers: Followers | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.path = path if listener is None else str(listener.getsockname())
        self._inherited = listener
        self.followers = followers
        self.budget = budget or Budget()
        #: Connections that are not read from just now, and how often that has been.
        self.paused = self.pauses = 0
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._readers: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; a socket that an agent left behind is replaced (the caller holds the lock)."""
        listener = self._inherited or self._listener()
        listener.setblocking(False)
        more: dict[str, Any] = {}
        if sys.version_info >= (3, 13):  # asyncio would unlink it: that is for whoever made it
            more["cleanup_socket"] = False
        self._server = await asyncio.start_unix_server(
            self._connected, sock=listener, backlog=BACKLOG, **more
        )

    def _listener(self) -> socket.socket:
        folder = os.path.dirname(self.path)  # noqa: PTH120
        paths.private_dir(folder)
        if stat.S_IMODE(os.stat(folder).st_mode) & 0o077:  # noqa: PTH116
            os.chmod(folder, 0o700)  # noqa: PTH101
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108
        listener = socket.socket(socket.AF_UNIX)
        with_address(self.path, listener.bind)
        os.chmod(self.path, 0o600)  # noqa: PTH101
        return listener

    async def stop(self) -> None:
        """Accept no more; take what has been sent already, answer it, and hang up."""
        if self._server is None:
            return
        if self._inherited is not None:
            self._server.close()  # who comes from now on waits in the queue for the next agent
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108
        await asyncio.sleep(GRACE)
        self._server.close()
        for reader, writer in list(self._readers.items()):
            with contextlib.suppress(RuntimeError):  # it is closing already
                writer.transport.pause_reading()  # type: ignore[attr-defined]
            reader.feed_eof()
        if self._connections:
            await asyncio.wait(self._connections, timeout=FAREWELL)
        for connection in list(self._connections):
            connection.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        if connection is not None:
            self._connections.add(connection)
            connection.add_done_callback(self._connections.discard)
        self._readers[reader] = writer
        answers: _Answers = asyncio.Queue(MAX_PENDING)
        answering = asyncio.create_task(_answer(answers, writer))
        try:
            async for line, too_long in _lines(reader):
                await self._begin(line, too_long, answers, writer)
        except OSError as error:  # reset by the other side; what was read is under way
            log.debug("ingest.connection_lost", error=str(error))
        finally:
            del self._readers[reader]
            await answers.put(None)
            await answering
            if self.followers is not None:  # only now has its last line been taken
                await self.followers.leave(writer)
            writer.close()

    async def _begin(
        self, line: bytes, too_long: bool, answers: _Answers, writer: asyncio.StreamWriter
    ) -> None:
        """Nothing more is read from a connection until there is room: its sender feels it."""
        size = 0 if line == ASKS_STATUS else len(line) + OVERHEAD
        if answers.full() or (size and not self.budget.has(size)):
            self.pauses += 1
            figures.PAUSES.add()
        self.paused += 1
        try:
            if size:
                await self.budget.take(size)
            await answers.put(asyncio.create_task(self._take(line, too_long, size, writer)))
        finally:
            self.paused -= 1

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._readers)

    async def _take(
        self, line: bytes, too_long: bool, size: int, writer: asyncio.StreamWriter
    ) -> bytes | None:
        try:
            if self.followers is not None and line.startswith(ASKS_TO_FOLLOW) and not too_long:
                return await self.followers.ask(line, writer)
            return await self._handle(line, too_long)
        except Exception:
            log.exception("ingest.failed")
            return b'{"ok":false,"error":"the agent failed on this line; see its log"}'
        finally:
            self.budget.give(size)


async def _answer(answers: _Answers, writer: asyncio.StreamWriter) -> None:
    """Write each answer when its turn has come; a client that is gone gets none."""
    while (task := await answers.get()) is not None:
        answer = await task
        if answer is None or writer.is_closing():
            continue
        if answer == HANG_UP:
            writer.transport.abort()
            continue
        try:
            writer.write(answer + b"\n")
            await writer.drain()
        except OSError as error:
            log.debug("ingest.answer_lost", error=str(error))


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    """Lines that are not blank, and whether each was too long: then only its start is given.

    What follows the last line break counts as a line.
    """
    held: list[bytes] = []
    size = 0
    while chunk := await reader.read(CHUNK):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            line = b"".join((*held, part))[: MAX_LINE + 1]
            too_long = size + len(part) > MAX_LINE
            held, size = [], 0
            if line.strip():
                yield line, too_long
        size += len(rest)
        if rest and sum(map(len, held)) <= MAX_LINE:
            held.append(rest)
    line = b"".join(held)[: MAX_LINE + 1]
    if line.strip():
        yield line, size > MAX_LINE
