"""The connection's bytes: messages straight to a callback, and commands straight to the socket.

nats-py gives every message a queue, a task switch and seven regular expressions, and every command
a way through a flusher's queue. A subscription that is `listen`ed to, and what `send` writes, take
neither. All the rest (connecting, reconnecting, subscribing anew, pings, other subscriptions) is
nats-py's own business. The one rule: a callback is synchronous, cheap, and hears every message in
the order in which it came.

What of nats-py is used here and is not public, tests/router/test_wire.py guards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

log = structlog.get_logger()

#: Length of the first line of a header block, `NATS/1.0`.
_VERSION: Final = 8
#: Bytes that the socket has not taken yet from which on others wait (asyncio's own limit), and for
#: how many seconds.
FULL: Final = 64 * 1024
PATIENCE: Final = 5.0


class Received(Protocol):
    """A message: ours, or nats-py's `Msg` where the client is not ours."""

    @property
    def subject(self) -> str: ...
    @property
    def reply(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> Mapping[str, str] | None: ...


class Message:
    """A message whose headers are read when they are asked for."""

    __slots__ = ("_block", "_headers", "data", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, block: bytes) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self._block = block
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str] | None:
        """By name; `Status` and `Description` are those of a status message (ADR-4). None when
        there are none."""
        if self._headers is None and self._block:
            self._headers = headers(self._block)
        return self._headers or None


Callback = Callable[[Received], None]


def headers(block: bytes) -> dict[str, str]:
    """The headers of a block `NATS/1.0[ <status>[ <description>]]` and lines (ADR-4)."""
    first, *lines = block.decode(errors="surrogateescape").split("\r\n")
    found: dict[str, str] = {}
    if status := first[_VERSION:].strip():
        code, _, description = status.partition(" ")
        found["Status"] = code
        if description:
            found["Description"] = description
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name] = value.strip()
    return found


class Wire(Parser):
    """nats-py's parser, with a short way for the messages of some subscriptions."""

    _life = 0

    def __init__(self, client: Client) -> None:
        #: By subscription id, as it stands in the protocol.
        self.routes: dict[bytes, Callback] = {}
        #: Called when the connection has broken, and again while the next one is made.
        self.breaks: set[Callable[[], None]] = set()
        super().__init__(client)

    def reset(self) -> None:
        """Begin anew: the connection is gone, or a new one begins."""
        super().reset()
        self._rest = b""
        self._life += 1
        for tell in tuple(self.breaks):
            tell()

    async def parse(self, data: bytes = b"") -> None:
        """Take what came from the socket: any number of messages, and parts of some."""
        buffer = self._rest + data if self._rest else data
        self._rest = b""
        life, at, routes = self._life, 0, self.routes
        while (end := buffer.find(b"\r\n", at)) >= 0:
            words = buffer[at:end].split()
            body = end + 2
            operation = words[0] if words else b""
            if operation not in (b"HMSG", b"MSG"):
                # one line of the protocol that concerns the connection
                await super().parse(buffer[at:body])
            else:
                stop = body + int(words[-1])
                if len(buffer) < stop + 2:
                    break
                data_at = body + int(words[-2]) if operation == b"HMSG" else body
                with_reply = len(words) == (6 if operation == b"HMSG" else 5)
                route = routes.get(words[2])
                if route is None:
                    await self.nc._process_msg(
                        int(words[2]),
                        words[1],
                        words[3] if with_reply else b"",
                        buffer[data_at:stop],
                        buffer[body:data_at] or None,
                    )
                else:
                    message = Message(
                        words[1].decode(),
                        words[3].decode() if with_reply else "",
                        buffer[data_at:stop],
                        buffer[body:data_at],
                    )
                    try:
                        route(message)
                    except Exception:  # a mistake of ours must not end the connection's reader
                        log.exception("wire.callback_failed", subject=message.subject)
                body = stop + 2
            at = body
            if self._life != life:  # the connection was exchanged while nats-py was at work
                return
        self._rest = buffer[at:]


class Listening:
    """One subscription whose messages go straight to a callback."""

    def __init__(self, client: Client, subscription: Subscription) -> None:
        self._client = client
        self._subscription = subscription

    async def end(self, *, drain: bool = False) -> None:
        """Listen no more; with `drain` what the server has sent already is still heard.

        Raises what nats-py raises when the connection is not there.
        """
        try:
            if drain:
                # nats-py's own drain sends its PING past what waits for the flusher, the UNSUB too
                await self._client._flush_pending(force_flush=True)
                await send(self._client, b"UNSUB %d\r\n" % self._subscription._id)
                await self._client.flush()
            await self._subscription.unsubscribe()
        finally:
            parser = self._client._ps
            if isinstance(parser, Wire):
                parser.routes.pop(b"%d" % self._subscription._id, None)


def checker(client: Client) -> Callable[[str], None]:
    """What raises PermissionDenied for a subject that this client may not publish to; nothing for
    a client that does not know."""
    check: Callable[[str], None] = getattr(client, "check", lambda _subject: None)
    return check


def road(client: Client, subject: str) -> str:
    """Where this client publishes what is meant for a subject."""
    found: Callable[[str], str] = getattr(client, "road", lambda same: same)
    return found(subject)


def install(client: Client) -> None:
    """Give a client that is not connected yet the short way."""
    client._ps = Wire(client)


async def listen(client: Client, subject: str, callback: Callback) -> Listening:
    """Hear every message on `subject`; also after a reconnect.

    A client without the short way is listened to by nats-py's.
    """

    async def call(msg: Msg) -> None:
        callback(msg)

    # a limit would drop messages in silence: who listens bounds what he asks for
    subscription = await client.subscribe(subject, cb=call, pending_bytes_limit=0)
    parser = client._ps
    if isinstance(parser, Wire):
        parser.routes[b"%d" % subscription._id] = callback
    return Listening(client, subscription)


def on_break(client: Client, tell: Callable[[], None]) -> Callable[[], None] | None:
    """Have `tell` called whenever the connection breaks (nats-py has room for one such callback);
    what ends that. None: this client cannot tell, it has to be looked at."""
    parser = client._ps
    if not isinstance(parser, Wire):
        return None
    parser.breaks.add(tell)
    return lambda: parser.breaks.discard(tell)


async def send(client: Client, frames: bytes, *, within: float = PATIENCE) -> None:
    """Write whole commands of the protocol, once the socket has taken what was written before.

    TimeoutError, and nothing is written, when it has not within so many seconds: the broker hangs,
    or is cut off. ConnectionError while it is away: nats-py would keep them, and send them after
    the reconnect, when nobody reckons with them any more.
    """
    writer = _writer(client)
    if writer is not None and writer.transport.get_write_buffer_size():
        async with asyncio.timeout(within):
            await writer.drain()
    if not send_now(client, frames):  # what nats-py was told before goes first
        await client._send_command(frames)
        await client._flush_pending()


def send_now(client: Client, frames: bytes) -> bool:
    """`send` without waiting; False, and nothing is written, when something has to go first."""
    transport = client._transport
    if transport is None or not client.is_connected:
        raise ConnectionError("the broker is away")
    writer = _writer(client)
    if client._pending or (writer and writer.transport.get_write_buffer_size() > FULL):
        return False
    transport.write(frames)
    return True


def hand_over(client: Client, frames: bytes) -> bool:
    """Write, and be sure: when this is True the kernel has all of it, and the broker gets it
    whatever becomes of this process. False: nothing is written, or not all of it yet."""
    writer = _writer(client)
    if writer is None or writer.transport.get_write_buffer_size():
        return False
    return send_now(client, frames) and not writer.transport.get_write_buffer_size()


def let_go(client: Client) -> None:
    """Close the socket at once: what it has not taken yet is not sent any more."""
    writer = _writer(client)
    if writer is not None:
        writer.transport.abort()


def _writer(client: Client) -> asyncio.StreamWriter | None:
    """What writes to the socket; None where nats-py has no such thing (a web socket)."""
    found: asyncio.StreamWriter | None = getattr(client._transport, "_io_writer", None)
    return found


def server_id(client: Client) -> str:
    """The broker's id, which is another one each time it is started; "" before a connection."""
    return str(client._server_info.get("server_id", ""))


def publication(
    subject: str, data: bytes, *, reply: str = "", block: bytes = b"", end: bytes = b"\r\n"
) -> bytes:
    """One PUB or HPUB command. `block` is a header block (`NATS/1.0` and lines, each with its line
    break), and `end` what follows it: more lines, and an empty one."""
    if not block:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(data), data)
    size = len(block) + len(end)
    command = f"HPUB {subject} {reply} {size} {size + len(data)}\r\n".encode()
    return b"".join((command, block, end, data, b"\r\n"))
