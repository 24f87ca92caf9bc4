"""The stdio transport: JSON-RPC lines from and to a server's process, bounded on every side.

Not the SDK's own: that one keeps a line of any length, gives a server our terminal for its errors,
and writes a traceback for each line that is no JSON. Here a line has a length, garbage is counted,
and a server that writes faster than anybody can mean it is read slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from opsmesh.handlers.mcp.program import CHUNK, Program

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

#: Bytes of one message of a server.
MAX_MESSAGE: Final = 4 * 1024 * 1024
#: Lines that are no JSON-RPC, in a row, after which a server is given up.
MAX_GARBAGE: Final = 200
#: Lines a second that are read; what is beyond waits in the server's pipe.
LINES_PER_S: Final = 2000
#: Seconds between the end of a server's output and its own, to tell of both.
END_S: Final = 1.0

log = structlog.get_logger()


class StdioTransport:
    """What `mcp.Client` takes as a transport. `ended` is set when the server says no more."""

    def __init__(self, name: str, program: Program) -> None:
        self._name = name
        self._program = program
        self.ended = asyncio.Event()
        #: Why it ended, or was given up; empty while it lives, and when it is closed in peace.
        self.fault = ""
        #: It was given up for a message that nobody could take.
        self.too_large = False
        self._told = False
        self._tasks: list[asyncio.Task[None]] = []
        self._writer: asyncio.StreamWriter | None = None
        self._streams: list[Any] = []

    async def __aenter__(self) -> tuple[Any, Any]:
        try:
            output, self._writer = await self._program.pipes()
        except BaseException:
            await self._program.stop(at_once=True)
            raise
        to_us: MemoryObjectSendStream[SessionMessage | Exception]
        read: MemoryObjectReceiveStream[SessionMessage | Exception]
        to_us, read = anyio.create_memory_object_stream(0)
        write: MemoryObjectSendStream[SessionMessage]
        from_us: MemoryObjectReceiveStream[SessionMessage]
        write, from_us = anyio.create_memory_object_stream(0)
        self._streams = [to_us, read, write, from_us]
        self._tasks = [
            asyncio.create_task(self._read(output, to_us), name=f"mcp read {self._name}"),
            asyncio.create_task(self._write(from_us, to_us), name=f"mcp write {self._name}"),
        ]
        return read, write

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream in self._streams:
            stream.close()
        for task in self._tasks:
            task.cancel()
        if self._writer is not None:
            self._writer.close()
        # A server that hung or lied has had its time.
        await self._program.stop(at_once=bool(self.fault))

    def give_up(self, why: str) -> None:
        """End it without ceremony."""
        self.fault = self.fault or why
        self.ended.set()

    def last_words(self) -> str:
        """The end of what it has said to standard error, to follow a reason."""
        said = self._program.last_line()
        return f"; its last words: {said}" if said else ""

    async def _read(self, output: asyncio.StreamReader, to_us: Any) -> None:
        try:
            with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
                await self._lines(output, to_us)
            # Its output is over: a moment for how it ended to be known.
            await self._program.last_said(END_S)
            self.fault = self.fault or self._program.ended()
        finally:
            self.ended.set()
            to_us.close()

    async def _lines(self, output: asyncio.StreamReader, to_us: Any) -> None:
        buffer, garbage = bytearray(), 0
        window, lines = time.monotonic(), 0
        while chunk := await output.read(CHUNK):
            searched = len(buffer)
            buffer += chunk
            while (end := buffer.find(b"\n", searched)) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                searched = 0
                lines += 1
                if lines >= LINES_PER_S:
                    await asyncio.sleep(max(0.0, window + 1 - time.monotonic()))
                    window, lines = time.monotonic(), 0
                if not line.strip():
                    continue
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    garbage += 1
                    if not self._told:  # once: what floods must not flood the log
                        self._told = True
                        log.warning("mcp.garbage", server=self._name, line=repr(line[:100]))
                    if garbage > MAX_GARBAGE:
                        self.fault = (
                            f"wrote {garbage} lines in a row that are no JSON-RPC, "
                            f"the last: {line[:80]!r}"
                        )
                        return
                    continue
                garbage = 0
                await to_us.send(SessionMessage(message))
            if len(buffer) > MAX_MESSAGE:
                self.too_large = True
                self.fault = f"sent a message of over {MAX_MESSAGE} bytes"
                return

    async def _write(self, from_us: Any, to_us: Any) -> None:
        writer = self._writer
        if writer is None:
            return
        try:
            async for message in from_us:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                writer.write(text.encode() + b"\n")
                await writer.drain()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
        except (OSError, RuntimeError):  # it reads no more: nobody may wait for its answer
            await self._program.last_said(END_S)
            self.give_up(self._program.ended("reads nothing more"))
            to_us.close()
