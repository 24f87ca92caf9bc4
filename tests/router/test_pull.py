"""Pull requests: nothing is lost while the connection holds, and a loss is always told."""

from __future__ import annotations

from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig
from tests.conftest import PATIENCE, eventually, mesh_client, restart, run

from opsmesh.router.pull import Delivery, Pull, delivery
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import EVENTS
from opsmesh.router.wire import Received

FACTS = Delivery("EVENTS", "c", 2, 123, 45, 1_700_000_000_000_000_001, 6)


@pytest.mark.parametrize(
    "prefix_suffix",
    [("$JS.ACK.", ""), ("$JS.ACK._.hash.", ""), ("$JS.ACK.hub.hash.", ".r4nd0m")],
    ids=["v1", "v2", "v2 with a random token"],
)
def test_delivery(prefix_suffix: tuple[str, str]) -> None:
    """All layouts of ADR-15 give the same facts."""
    prefix, suffix = prefix_suffix
    assert delivery(f"{prefix}EVENTS.c.2.123.45.1700000000000000001.6{suffix}") == FACTS


@pytest.mark.parametrize("reply", ["", "_INBOX.x", "$JS.ACK.a.b", "$JS.NAK.E.c.1.1.1.1.1"])
def test_other_subjects_are_no_deliveries(reply: str) -> None:
    """A reply subject that is no acknowledgement subject is a ValueError that shows it."""
    with pytest.raises(ValueError, match="is no JetStream acknowledgement"):
        delivery(reply)


async def store(client: Client, count: int, *, first: int = 0) -> None:
    """Publish events and wait until all are stored."""
    js = client.jetstream()
    for number in range(first, first + count):
        await client.publish("evt.h.a.b", str(number).encode())
    await client.flush()

    async def stored() -> bool:
        return (await js.stream_info(EVENTS)).state.messages >= first + count

    await eventually(stored)


async def consumer(client: Client, **more: Any) -> None:
    config = ConsumerConfig(durable_name="c", ack_policy=AckPolicy.NONE, **more)
    await client.jetstream().add_consumer(EVENTS, config=config)


def test_everything_arrives_in_order(nats_server: EmbeddedServer) -> None:
    """More messages than one request asks for all arrive, in order, with contiguous numbers."""
    got: list[Received] = []

    async def body() -> None:
        async with mesh_client() as client:
            await store(client, 1000)
            await consumer(client)

            def take(msg: Received) -> None:
                got.append(msg)
                pull.done(1)

            pull = Pull(client, EVENTS, "c", batch=64, on_message=take)
            await pull.start()
            await eventually(lambda: len(got) == 1000)
            await store(client, 1, first=1000)
            await eventually(lambda: len(got) == 1001)
            await pull.stop()

    run(body())
    assert [msg.data for msg in got] == [str(n).encode() for n in range(1001)]
    assert [delivery(msg.reply).consumer_seq for msg in got] == list(range(1, 1002))


def test_slow_reader_is_not_flooded(nats_server: EmbeddedServer) -> None:
    """Without credit given back no more than `batch` messages arrive; with it the next ones do."""
    got: list[Received] = []

    async def body() -> None:
        async with mesh_client() as client:
            await store(client, 50)
            await consumer(client)
            pull = Pull(client, EVENTS, "c", batch=8, on_message=got.append)
            await pull.start()
            await eventually(lambda: len(got) == 8)
            await client.flush()

            async def at_rest() -> bool:
                info = await client.jetstream().consumer_info(EVENTS, "c")
                return (info.num_pending, info.num_waiting) == (42, 0)

            await eventually(at_rest)
            assert len(got) == 8
            pull.done(3)
            await eventually(lambda: len(got) == 11)
            await pull.stop()

    run(body())


def test_large_messages_come_in_portions(nats_server: EmbeddedServer) -> None:
    """Messages of far more bytes than one request may bring all arrive, in order."""
    got: list[Received] = []
    lost: list[str] = []

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            for number in range(30):
                await js.publish("evt.h.a.b", b"%02d" % number + b"x" * 900_000)
            await consumer(client)
            pull = Pull(client, EVENTS, "c", on_message=got.append, on_lost=lost.append)
            await pull.start()
            await eventually(lambda: len(got) == 30)
            await pull.stop()

    run(body())
    assert [int(msg.data[:2]) for msg in got] == list(range(30))
    assert lost == []


def test_request_that_expires_is_sent_again(nats_server: EmbeddedServer) -> None:
    """A message that comes after many empty requests still arrives, and nothing was lost."""
    got: list[Received] = []
    lost: list[str] = []

    async def body() -> None:
        async with mesh_client() as client:
            await consumer(client)
            seen = []
            pull = Pull(
                client,
                EVENTS,
                "c",
                on_message=got.append,
                on_lost=lost.append,
                heartbeat_s=0.1,
                expires_s=0.25,
            )
            pull._silence = PATIENCE  # a broker that is busy for a moment has lost nothing

            # another subscription on the inbox sees the statuses that the pull acts on
            async def look(msg: Received) -> None:
                seen.append((msg.headers or {}).get("Status"))

            await client.subscribe("_INBOX.*.*", cb=look)
            await pull.start()
            await eventually(lambda: seen.count("408") >= 3)
            assert "100" in seen
            await store(client, 1)
            await eventually(lambda: len(got) == 1)
            await pull.stop()

    run(body())
    assert lost == []


def test_deleted_consumer_is_told_and_asked_again(nats_server: EmbeddedServer) -> None:
    """on_lost hears of the deletion; after the consumer is made anew, messages arrive again."""
    got: list[Received] = []
    lost: list[str] = []

    async def body() -> None:
        async with mesh_client() as client:
            await consumer(client)
            pull = Pull(client, EVENTS, "c", on_message=got.append, on_lost=lost.append)
            await pull.start()
            await store(client, 1)
            await eventually(lambda: len(got) == 1)
            await client.jetstream().delete_consumer(EVENTS, "c")
            await eventually(lambda: "no such consumer" in lost)
            assert lost[0] == "Consumer Deleted"
            await consumer(client)
            await eventually(lambda: len(got) == 2)
            await pull.stop()

    run(body())


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_broker_restart(nats_server: EmbeddedServer, how: str) -> None:
    """After a restart of the broker the loss is told, and new messages arrive."""
    got: list[Received] = []
    lost: list[str] = []

    async def body() -> None:
        async with mesh_client() as client:
            # what is under way when the connection breaks is lost: only redelivery brings it back
            await client.jetstream().add_consumer(
                EVENTS,
                config=ConsumerConfig(
                    durable_name="c", ack_policy=AckPolicy.EXPLICIT, ack_wait=2.0
                ),
            )
            pull = Pull(client, EVENTS, "c", on_message=got.append, on_lost=lost.append)
            await pull.start()
            await store(client, 1)
            await eventually(lambda: bool(got))
            await restart(client, nats_server, getattr(nats_server, how))
            await store(client, 1, first=1)
            await eventually(lambda: {msg.data for msg in got} == {b"0", b"1"})
            await eventually(lambda: bool(lost))
            await pull.stop()

    run(body())


def test_stop_hands_over_what_is_on_its_way(nats_server: EmbeddedServer) -> None:
    """Every message that the broker has delivered reaches on_message, and none comes after stop."""
    got: list[Received] = []

    async def body() -> None:
        async with mesh_client() as client:
            await store(client, 500)
            await consumer(client)
            pull = Pull(client, EVENTS, "c", batch=500, on_message=got.append)
            await pull.start()
            await eventually(lambda: got)
            await pull.stop()
            count = len(got)
            info = await client.jetstream().consumer_info(EVENTS, "c")
            assert info.delivered is not None
            assert info.delivered.stream_seq == count == len(got)

    run(body())
