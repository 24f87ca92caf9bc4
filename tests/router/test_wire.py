"""The short way between the connection and a callback: the same messages as nats-py gives."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser
from tests.conftest import eventually, mesh_client, restart, run

from opsmesh.router import connection, server, wire
from opsmesh.router.settings import Settings

pytestmark = pytest.mark.usefixtures("nats_server")


class Spy:
    """Takes what a parser hands to its client."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, bytes, bytes, bytes, bytes]] = []

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, block: bytes | None
    ) -> None:
        self.messages.append((sid, bytes(subject), bytes(reply), data, block or b""))

    async def _process_ping(self) -> None:
        self.messages.append((0, b"PING", b"", b"", b""))


def message(sid: int, reply: bool, data: bytes, with_headers: bool) -> bytes:
    """One message as a server sends it."""
    words = b"evt.a.b %d" % sid + (b" _INBOX.x" if reply else b"")
    if not with_headers:
        return b"MSG %b %d\r\n%b\r\n" % (words, len(data), data)
    block = b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n"
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (words, len(block), len(block) + len(data), block, data)


messages = st.builds(
    message, st.integers(1, 3), st.booleans(), st.binary(max_size=40), st.booleans()
)


@given(st.lists(st.one_of(messages, st.just(b"PING\r\n")), max_size=8), st.integers(1, 30))
def test_every_message_comes_whole_however_the_socket_cuts_it(sent: list[bytes], size: int) -> None:
    """What nats-py's own parser reads, this one reads, routed or not, in pieces of any size."""
    stream = b"".join(sent)
    plain, ours = Spy(), Spy()
    wired = wire.Wire(ours)  # type: ignore[arg-type]

    def routed(msg: wire.Received) -> None:
        assert isinstance(msg, wire.Message)
        ours.messages.append((2, msg.subject.encode(), msg.reply.encode(), msg.data, msg._block))

    wired.routes[b"2"] = routed

    async def body() -> None:
        parser = Parser(plain)
        for at in range(0, len(stream), size):
            await parser.parse(stream[at : at + size])
            await wired.parse(stream[at : at + size])

    asyncio.run(body())
    assert ours.messages == plain.messages


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0\r\nA: 1\r\nNats-Msg-Id: x: y\r\n\r\n",
        b"NATS/1.0 404 No Messages\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n",
    ],
)
def test_headers_are_read_as_nats_py_reads_them(block: bytes) -> None:
    """Status, description and headers of a block are the same as nats-py's."""
    theirs = asyncio.run(Client()._process_headers(block))
    assert wire.headers(block) == dict(theirs or {})


def test_a_listener_hears_everything_in_order_and_again_after_a_reconnect(
    nats_server: server.EmbeddedServer,
) -> None:
    """Messages come in the order of sending, before and after the broker was killed."""
    heard: list[bytes] = []

    async def body() -> None:
        async with mesh_client() as client:
            await wire.listen(client, "some.*", lambda msg: heard.append(msg.data))
            for n in range(100):
                await wire.send(client, wire.publication("some.thing", b"%d" % n))
            await eventually(lambda: len(heard) == 100)
            await restart(client, nats_server)
            await wire.send(client, wire.publication("some.thing", b"100"))
            await eventually(lambda: len(heard) == 101)

    run(body())
    assert heard == [b"%d" % n for n in range(101)]


def test_a_callback_that_fails_does_not_end_the_reader() -> None:
    """A listener's mistake costs that message, and nothing behind it."""
    heard: list[bytes] = []

    def callback(msg: wire.Received) -> None:
        heard.append(msg.data)
        raise RuntimeError("a mistake")

    async def body() -> None:
        async with mesh_client() as client:
            await wire.listen(client, "some.thing", callback)
            await wire.send(client, wire.publication("some.thing", b"1"))
            await wire.send(client, wire.publication("some.thing", b"2"))
            await eventually(lambda: len(heard) == 2)

    run(body())


def test_what_has_been_sent_is_heard_when_a_listener_drains() -> None:
    """`end(drain=True)` returns when everything sent before is heard, and nothing comes later."""
    heard: list[bytes] = []

    async def body() -> None:
        async with mesh_client() as client:
            listening = await wire.listen(client, "some.thing", lambda msg: heard.append(msg.data))
            await wire.send(client, wire.publication("some.thing", b"1") * 50)
            await listening.end(drain=True)
            assert len(heard) == 50
            await wire.send(client, wire.publication("some.thing", b"2"))
            await client.flush()

    run(body())
    assert len(heard) == 50


def test_a_client_of_somebody_else_is_listened_to_as_well() -> None:
    """Without our parser, messages come through nats-py's own subscription."""
    heard: list[Any] = []

    async def body() -> None:
        where = connection.endpoint(Settings(), role="admin")
        client = Client()
        await client.connect(**where.options())
        await wire.listen(client, "some.thing", heard.append)
        await wire.send(client, wire.publication("some.thing", b"1"))
        await eventually(lambda: heard)
        await client.close()

    run(body())
    assert isinstance(heard[0], Msg)


def test_nothing_is_kept_for_later_while_the_broker_is_away(
    nats_server: server.EmbeddedServer,
) -> None:
    """`send` fails at once instead of leaving its bytes to a reconnect."""

    async def body() -> None:
        async with mesh_client() as client:
            nats_server.kill()
            await eventually(lambda: not client.is_connected)
            with pytest.raises(ConnectionError):
                await wire.send(client, wire.publication("some.thing", b"1"))

    run(body())


def test_nats_py_still_has_what_is_used_here() -> None:
    """The private parts of nats-py have the form that this module relies on."""
    assert isinstance(Client()._ps, Parser)
    assert list(inspect.signature(Client._send_command).parameters)[:2] == ["self", "cmd"]
    assert inspect.iscoroutinefunction(Client._send_command)
    assert inspect.iscoroutinefunction(Client._flush_pending)
    parameters = list(inspect.signature(Client._process_msg).parameters)
    assert parameters == ["self", "sid", "subject", "reply", "data", "headers"]
    assert {"_pending", "_transport", "_subs", "_server_info"} <= vars(Client()).keys()
    assert "_io_writer" in vars(TcpTransport())  # type: ignore[no-untyped-call]
