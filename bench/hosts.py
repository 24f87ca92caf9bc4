"""Thin hosts, as many as one process holds: raw connections that speak NATS's protocol by hand.

Each is one TCP (or TLS) connection with one subscription for its answers, and publishes as a host's
agent does: an event under its own subject, with its id, waiting for the acknowledgement. What an
agent is beside that (the spool, the socket, redaction) happens on the host and costs the hub
nothing.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

#: Connections that are being made at the same time.
AT_ONCE: Final = 100
#: Seconds for an acknowledgement.
PATIENCE: Final = 30.0

_CONNECT: Final = json.dumps({"verbose": False, "headers": True, "no_responders": True})


class Host(asyncio.Protocol):
    """One connection. Answers come in the order of the requests: one is under way at a time."""

    def __init__(self, number: int, root: str) -> None:
        self.name = f"h{number}"
        self._root = root
        self._rest = b""
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._sent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._rest + data
        while (end := buffer.find(b"\r\n")) >= 0:
            line = buffer[:end]
            if line.startswith((b"MSG", b"HMSG")):
                size = int(line.rpartition(b" ")[2])
                if len(buffer) < end + 4 + size:
                    break
                if self._answer is not None and not self._answer.done():
                    self._answer.set_result(buffer[end + 2 : end + 2 + size])
                buffer = buffer[end + 4 + size :]
                continue
            buffer = buffer[end + 2 :]
            self._line(line)
        self._rest = buffer

    def _line(self, line: bytes) -> None:
        if line.startswith(b"INFO") and not self._ready.done():
            self._write(f"CONNECT {_CONNECT}\r\nSUB in.{self.name} 1\r\nPING\r\n".encode())
        elif line == b"PONG" and not self._ready.done():
            self._ready.set_result(None)
        elif line == b"PING":
            self._write(b"PONG\r\n")

    def connection_lost(self, error: Exception | None) -> None:
        gone = ConnectionError(str(error or "the server ended the connection"))
        for one in (self._ready, self._answer):
            if one is not None and not one.done():
                one.set_exception(gone)

    async def ready(self) -> None:
        """Connected, and heard by the server."""
        await asyncio.wait_for(self._ready, PATIENCE)

    async def publish(self, topic: str, data: bytes) -> float:
        """One event, stored; the seconds it took."""
        self._sent += 1
        began = time.perf_counter()
        self._answer = asyncio.get_running_loop().create_future()
        header = f"NATS/1.0\r\nNats-Msg-Id: {self.name}-{self._sent}\r\n\r\n".encode()
        command = f"HPUB {self._root}.{self.name}.{topic} in.{self.name} {len(header)}"
        self._write(f"{command} {len(header) + len(data)}\r\n".encode() + header + data + b"\r\n")
        answer = await asyncio.wait_for(self._answer, PATIENCE)
        if b'"seq"' not in answer:
            raise ConnectionError(f"not stored: {answer[:200]!r}")
        return time.perf_counter() - began

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


@asynccontextmanager
async def hosts(
    count: int,
    ports: Sequence[int],
    *,
    roots: Sequence[str] = ("evt",),
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[list[Host]]:
    """So many hosts, spread over these ports of loopback and these first tokens of their subjects,
    until the body ends."""
    made: list[Host] = []
    free = asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()

    async def one(number: int) -> None:
        async with free:
            _, host = await loop.create_connection(
                lambda: Host(number, roots[number % len(roots)]),
                "127.0.0.1",
                ports[number % len(ports)],
                ssl=tls,
            )
            made.append(host)
            await host.ready()

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(number))
        yield made
    finally:
        for host in made:
            host.close()
