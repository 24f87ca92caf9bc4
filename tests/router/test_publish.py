"""The publisher: acknowledged, in order, batched; against a real server."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from tests.conftest import PATIENCE, eventually, freeze, mesh_client, run

from opsmesh.router import publish, wire
from opsmesh.router.errors import NotAcknowledged
from opsmesh.router.publish import PubAck, Publisher
from opsmesh.router.server import EmbeddedServer

SUBJECT = "evt.h.a.b"


async def send(publisher: Publisher, *ids: str) -> list[PubAck]:
    """All at once, as one caller after the other."""
    return await asyncio.gather(*(publisher.publish(SUBJECT, id.encode(), msg_id=id) for id in ids))


async def acknowledged(publisher: Publisher, id: str) -> bool:
    """Whether the broker has taken this message; who has little patience may have to ask again."""
    try:
        await send(publisher, id)
    except NotAcknowledged:
        return False
    return True


async def stored(client: Client) -> list[str]:
    js = client.jetstream()
    last = (await js.stream_info("EVENTS")).state.last_seq
    return [((await js.get_msg("EVENTS", seq)).data or b"").decode() for seq in range(1, last + 1)]


def test_each_caller_gets_the_sequence_of_its_own_message(nats_server: EmbeddedServer) -> None:
    """Messages of a batch are stored in the order of the calls, each where its caller is told."""

    async def body() -> None:
        async with mesh_client() as client:
            publisher = Publisher(client)
            ids = [f"id-{n}" for n in range(1200)]
            acks = await send(publisher, *ids)
            assert acks == [PubAck(n, False) for n in range(1, 1201)]
            js = client.jetstream()
            for n in (0, 1, 499, 500, 999, 1199):
                assert (await js.get_msg("EVENTS", n + 1)).data == ids[n].encode()

    run(body())


def test_many_messages_go_as_batches(nats_server: EmbeddedServer) -> None:
    """What collects while a message is in flight is stored as atomic batches."""

    async def body() -> None:
        async with mesh_client() as client:
            await send(Publisher(client), *(f"id-{n}" for n in range(600)))
            msg = await client.jetstream().get_msg("EVENTS", 300)
            assert msg.headers is not None
            assert msg.headers["Nats-Batch-Sequence"] == "300"

    run(body())


def test_a_single_message_goes_plainly(nats_server: EmbeddedServer) -> None:
    """An idle publisher sends at once, with its id and the caller's headers alone."""

    async def body() -> None:
        async with mesh_client() as client:
            ack = await Publisher(client).publish(SUBJECT, b"x", msg_id="one", headers={"A": "b"})
            assert ack == PubAck(1, False)
            msg = await client.jetstream().get_msg("EVENTS", 1)
            assert msg.headers == {"Nats-Msg-Id": "one", "A": "b"}

    run(body())


def test_known_ids_inside_a_batch_are_reported_and_stored_once(
    nats_server: EmbeddedServer,
) -> None:
    """A batch with an id that the broker knows loses nothing and doubles nothing."""

    async def body() -> None:
        async with mesh_client() as client:
            publisher = Publisher(client)
            await send(publisher, "a")
            acks = await send(publisher, "b", "a", "c", "b", "d")
            assert [ack.duplicate for ack in acks] == [False, True, False, True, False]
            assert await stored(client) == ["a", "b", "c", "d"]
            assert [ack.seq for ack in acks if not ack.duplicate] == [2, 3, 4]
            assert await send(publisher, "e", "f") == [PubAck(5, False), PubAck(6, False)]

    run(body())


def test_a_stream_without_batches_is_served_singly(nats_server: EmbeddedServer) -> None:
    """Where the broker refuses atomic batches, every message still arrives, in order."""

    async def body() -> None:
        async with mesh_client() as client:
            await client.jetstream().add_stream(StreamConfig(name="PLAIN", subjects=["plain.>"]))
            publisher = Publisher(client, stream="PLAIN")
            acks = await asyncio.gather(
                *(publisher.publish("plain.x", b"x", msg_id=f"{n}") for n in range(50))
            )
            assert acks == [PubAck(n, False) for n in range(1, 51)]

    run(body())


def test_back_pressure_keeps_the_order(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More callers than the queue holds wait for their turn, first come, first served."""
    monkeypatch.setattr(publish, "MAX_QUEUED", 7)

    async def body() -> None:
        async with mesh_client() as client:
            ids = [f"id-{n}" for n in range(100)]
            await send(Publisher(client), *ids)
            assert await stored(client) == ids

    run(body())


def test_a_cancelled_caller_disturbs_nobody(
    nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers that give up, queued or waiting for their turn, leave the others in order."""
    monkeypatch.setattr(publish, "MAX_QUEUED", 5)

    async def body() -> None:
        async with mesh_client() as client:
            publisher = Publisher(client)
            ids = [f"id-{n}" for n in range(20)]
            calls = [
                asyncio.create_task(publisher.publish(SUBJECT, id.encode(), msg_id=id))
                for id in ids
            ]
            await asyncio.sleep(0)
            for n in (2, 9):
                calls[n].cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            rest = [id for n, id in enumerate(ids) if n not in (2, 9)]
            assert [id for id in await stored(client) if id in rest] == rest
            assert await send(publisher, "last")

    run(body())


def test_a_broker_that_goes_away_is_not_acknowledged(nats_server: EmbeddedServer) -> None:
    """Messages in flight and new ones fail, and what follows a restart is stored."""

    async def body() -> None:
        async with mesh_client() as client:
            publisher = Publisher(client)
            await send(publisher, "first")
            assert nats_server.process is not None
            nats_server.kill()
            outcomes = await asyncio.gather(
                send(publisher, "lost"), send(publisher, "too"), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [NotAcknowledged] * 2
            await eventually(lambda: not client.is_connected)
            with pytest.raises(NotAcknowledged, match="away"):
                await send(publisher, "at once")
            nats_server.start()
            await eventually(lambda: client.is_connected)
            assert not (await send(publisher, "again"))[0].duplicate

    run(body())


def test_a_broker_that_hangs_is_not_acknowledged(nats_server: EmbeddedServer) -> None:
    """No answer in time fails everybody who waits; the same ids sent again are stored once."""

    async def body() -> None:
        async with mesh_client() as client:
            publisher = Publisher(client, ack_timeout=0.2)
            ids = [f"id-{n}" for n in range(20)]
            await send(Publisher(client), "warm")
            assert nats_server.process is not None
            freeze(nats_server.process)
            outcomes = await asyncio.gather(
                *(send(publisher, id) for id in ids), return_exceptions=True
            )
            nats_server.process.send_signal(18)  # SIGCONT
            assert {type(outcome) for outcome in outcomes} == {NotAcknowledged}
            patient = Publisher(client)
            await send(patient, *ids)
            assert await stored(client) == ["warm", *ids]

    run(body())


@pytest.mark.parametrize("count", [1, 3])
def test_a_socket_that_takes_no_more_holds_nobody(nats_server: EmbeddedServer, count: int) -> None:
    """What waits behind megabytes that a broker which hangs has not taken is not acknowledged
    either, after as long, and is not sent later."""
    assert nats_server.process is not None
    process = nats_server.process

    async def body() -> None:
        async with mesh_client() as client:
            publisher = Publisher(client, ack_timeout=0.5)
            await send(Publisher(client, ack_timeout=PATIENCE), "before")
            freeze(process)
            wire.send_now(client, wire.publication("some.where", b"x" * 1_000_000) * 32)
            sent = (publisher.publish(SUBJECT, b"late", msg_id=f"late-{n}") for n in range(count))
            told = await asyncio.gather(*sent, return_exceptions=True)
            assert [type(one) for one in told] == [NotAcknowledged] * count
            process.send_signal(signal.SIGCONT)
            # it has megabytes to read before
            await send(Publisher(client, ack_timeout=PATIENCE), "between")
            await eventually(lambda: acknowledged(publisher, "after"))
            assert await stored(client) == ["before", "between", "after"]

    try:
        run(body())
    finally:
        process.send_signal(signal.SIGCONT)


def test_a_subject_that_no_stream_holds_fails_at_once(nats_server: EmbeddedServer) -> None:
    """The broker's "nobody listens" is an answer, not a time-out."""

    async def body() -> None:
        async with mesh_client() as client:
            with pytest.raises(NotAcknowledged, match="nothing stores"):
                await Publisher(client, ack_timeout=30).publish("nowhere.x", b"", msg_id="1")

    run(body())


@pytest.mark.parametrize(
    "call",
    [
        {"subject": "evt.h.a b"},
        {"subject": "evt.h.a\r\nPUB x 0\r\n"},
        {"msg_id": "a\r\nNats-Rollup: all"},
        {"headers": {"A": "x\ny"}},
        {"data": b"x" * (1024 * 1024)},
    ],
)
def test_what_cannot_be_sent_is_refused_here(
    nats_server: EmbeddedServer, call: dict[str, Any]
) -> None:
    """A line break in a name or a header, or too many bytes, never reaches the connection."""

    async def body() -> None:
        async with mesh_client() as client:
            publisher = Publisher(client)
            wrong = {"subject": SUBJECT, "data": b"x", "msg_id": "1", **call}
            with pytest.raises(ValueError):
                await publisher.publish(wrong.pop("subject"), wrong.pop("data"), **wrong)
            assert (await send(publisher, "fine"))[0].seq == 1

    run(body())
