"""Reading a stream to its present end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.js.api import StreamConfig
from tests.conftest import mesh_client, run
from tests.faults.clusters import PASSWORD, USER, Cluster, cluster_of_three

from opsmesh.router import connection
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.pull import Pull, delivery
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import EVENTS


def test_reads_in_order_to_the_end(nats_server: EmbeddedServer) -> None:
    """Every message of the subjects is seen once, in order, and then the scan ends."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            assert [m async for m in scan(client, EVENTS)] == []
            for n in range(3000):
                await js.publish_async(f"evt.h.a.{('even', 'odd')[n % 2]}", str(n).encode())
            await js.publish_async_completed()
            every = [int(m.data) async for m in scan(client, EVENTS)]
            assert every == list(range(3000))
            odd = [int(m.data) async for m in scan(client, EVENTS, subjects=["evt.*.a.odd"])]
            assert odd == list(range(1, 3000, 2))
            tail = [int(m.data) async for m in scan(client, EVENTS, start_seq=2999)]
            assert tail == [2998, 2999]

    run(body())


def test_since_is_the_stored_time(nats_server: EmbeddedServer) -> None:
    """`since_us` begins with the first message that was stored at that time or later."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            for n in range(5):
                await js.publish("evt.h.a.b", str(n).encode())
            stored = [delivery(m.reply).timestamp_ns async for m in scan(client, EVENTS)]
            since_us = -(-stored[3] // 1000)
            found = [int(m.data) async for m in scan(client, EVENTS, since_us=since_us)]
            assert found in ([3, 4], [4])  # the broker keeps nanoseconds, we ask in microseconds

    run(body())


def test_scan_leaves_no_consumer_behind(nats_server: EmbeddedServer) -> None:
    """The consumer of a scan is gone after it, also when the reader stops early."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            for _ in range(3):
                await js.publish("evt.h.a.b", b"x")
            found = scan(client, EVENTS)
            await anext(found)
            await found.aclose()  # type: ignore[attr-defined]
            assert await js.consumers_info(EVENTS) == []

    run(body())


def test_what_goes_meanwhile_is_not_waited_for(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is counted, and is gone before it is read: the scan ends."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            last = (await js.publish("evt.h.a.b", b"x")).seq
            start = Pull.start

            async def late(self: Pull) -> None:
                await js.delete_msg(EVENTS, last)
                await start(self)

            monkeypatch.setattr(Pull, "start", late)
            assert [m async for m in scan(client, EVENTS)] == []

    run(body())


def test_a_reader_that_is_forgotten_begins_anew(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that forgets a reader which it has just made is asked for another one."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            for n in range(3):
                await js.publish("evt.h.a.b", str(n).encode())
            start = Pull.start
            forgotten: list[bool] = []

            async def late(self: Pull) -> None:
                if not forgotten:
                    (reader,) = await js.consumers_info(EVENTS)
                    forgotten.append(await js.delete_consumer(EVENTS, reader.name))
                await start(self)

            monkeypatch.setattr(Pull, "start", late)
            assert [m.data async for m in scan(client, EVENTS)] == [b"0", b"1", b"2"]
            assert forgotten == [True]

    run(body())


@pytest.mark.parametrize("newest", [False, True], ids=["all", "newest"])
def test_a_reader_that_is_forgotten_in_its_middle_goes_on(
    nats_server: EmbeddedServer, newest: bool
) -> None:
    """A broker that forgets a reader while it reads is asked for another one, which gives what
    comes after the last message: each is seen once, in order."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            for n in range(3000):
                await js.publish_async(f"evt.h.a.n{n}", str(n).encode())
            await js.publish_async_completed()
            found = []
            reading = scan(client, EVENTS, subjects=["evt.>"], newest_per_subject=newest)
            async for msg in reading:
                found.append(int(msg.data))
                if len(found) == 10:
                    (reader,) = await js.consumers_info(EVENTS)
                    await js.delete_consumer(EVENTS, reader.name)
            assert found == list(range(3000))

    run(body())


def test_a_follower_that_is_forgotten_goes_on(nats_server: EmbeddedServer) -> None:
    """Who follows a stream hears what comes after its reader was forgotten, too."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await js.publish("evt.h.a.b", b"0")
            following = scan(client, EVENTS, follow=True)
            assert (await anext(following)).data == b"0"
            (reader,) = await js.consumers_info(EVENTS)
            await js.delete_consumer(EVENTS, reader.name)
            await js.publish("evt.h.a.b", b"1")
            assert (await anext(following)).data == b"1"
            await following.aclose()  # type: ignore[attr-defined]

    run(body())


def test_a_stream_that_went_back_is_not_waited_for(nats_server: EmbeddedServer) -> None:
    """A follower whose stream is replaced by a shorter one says so, instead of waiting for what
    comes after a sequence that is far ahead."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            for _ in range(3):
                await js.publish("evt.h.a.b", b"x")
            following = scan(client, EVENTS, follow=True)
            for _ in range(3):
                await anext(following)
            config = (await js.stream_info(EVENTS)).config
            await js.delete_stream(EVENTS)
            await js.add_stream(config)
            with pytest.raises(BrokerUnavailable, match="gone back from 3 to 0"):
                await anext(following)

    run(body())


def test_what_is_replaced_meanwhile_is_not_missed(nats_server: EmbeddedServer) -> None:
    """Every subject that there was comes once, however often its message is replaced while it is
    read: the broker's count is 0 for a moment then."""

    async def body() -> None:
        async with mesh_client() as client, mesh_client() as other:
            js = client.jetstream()
            name = "KV_NEWEST"
            await js.add_stream(StreamConfig(name=name, subjects=["x.*"], max_msgs_per_subject=1))
            subjects = [f"x.{n}" for n in range(3)]
            for subject in subjects:
                await js.publish(subject, b"")

            async def write() -> None:
                for subject in subjects * 10:
                    await other.jetstream().publish(subject, b"")

            for _ in range(50):
                writer = asyncio.create_task(write())
                found = scan(client, name, subjects=["x.>"], newest_per_subject=True)
                assert sorted([msg.subject async for msg in found]) == subjects
                await writer

    run(body())


@pytest.mark.slow
def test_a_reader_goes_on_when_its_node_dies(tmp_path: Path) -> None:
    """In a cluster a reader lies in the memory of one node: when that is killed while it reads, who
    is connected to another node gets the rest, each once and in order."""

    async def body(hub: Cluster) -> None:
        node = hub.nodes[0]
        where = Endpoint(url=node.url, user=USER, password=PASSWORD)
        client = await connection.connect(where, name="cli", patient=False)
        js = client.jetstream()
        await js.add_stream(name="S", subjects=["s.>"], num_replicas=3)
        for n in range(3000):
            await js.publish_async("s.x", str(n).encode())
        await js.publish_async_completed()
        while True:
            reading = scan(client, "S")
            found = [int((await anext(reading)).data)]
            (reader,) = await js.consumers_info("S")
            assert reader.cluster is not None
            if reader.cluster.leader != node.name:
                break
            await reading.aclose()  # type: ignore[attr-defined]
        next(one for one in hub.nodes if one.name == reader.cluster.leader).kill()
        found += [int(msg.data) async for msg in reading]
        assert found == list(range(3000))
        await client.close()

    with cluster_of_three(tmp_path) as hub:
        run(body(hub), timeout=120)
