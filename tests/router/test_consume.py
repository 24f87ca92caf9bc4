"""The durable consumer loop: outcomes become ack, delayed nak or term, and nothing is lost."""

from __future__ import annotations

import asyncio

import pytest
from tests.conftest import eventually, mesh_client, restart, run

from opsmesh.router.consume import Ack, Consumer, Message, Outcome, Reject, Retry, Work, durable
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import EVENTS


def test_outcomes_settle(nats_server: EmbeddedServer) -> None:
    """Ack and Reject end a message, Retry brings it back after its delay with a higher count."""
    seen: list[tuple[bytes, int]] = []

    async def handle(message: Message) -> Outcome:
        seen.append((message.data, message.delivery.num_delivered))
        if message.data == b"retry" and message.delivery.num_delivered < 3:
            return Retry(0.05)
        return Reject("bad") if message.data == b"reject" else Ack()

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            consumer = Consumer(client, EVENTS, durable("t", ["evt.*.a.b"]), handle)
            await consumer.start()
            for data in (b"ack", b"retry", b"reject"):
                await js.publish("evt.h.a.b", data)
            await js.publish("evt.h.other.topic", b"not for us")

            async def settled() -> bool:
                info = await js.consumer_info(EVENTS, "t")
                return (len(seen), info.num_ack_pending, info.num_pending) == (5, 0, 0)

            await eventually(settled)
            await consumer.stop()
        assert sorted(seen) == [(b"ack", 1), (b"reject", 1), *((b"retry", n) for n in (1, 2, 3))]

    run(body())


def test_work_runs_beside_at_most_concurrency(nats_server: EmbeddedServer) -> None:
    """Handlers are called in order; their work overlaps, but never more than the limit."""
    running, most, order = 0, 0, []
    gate = asyncio.Event()

    async def work() -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return Ack()

    async def handle(message: Message) -> Outcome | Work:
        order.append(message.seq)
        return work()

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            consumer = Consumer(client, EVENTS, durable("t", ["evt.>"]), handle, concurrency=3)
            await consumer.start()
            for n in range(10):
                await js.publish("evt.h.a.b", str(n).encode())
            await eventually(lambda: len(order) == 10 and running == 3)
            gate.set()

            async def settled() -> bool:
                return not (await js.consumer_info(EVENTS, "t")).num_ack_pending

            await eventually(settled)
            await consumer.stop()
        assert most == 3
        assert order == sorted(order)

    run(body())


def test_handler_that_raises_is_retried(nats_server: EmbeddedServer) -> None:
    """An exception in a handler is not an acknowledgement: the message comes back."""
    calls = 0

    async def handle(message: Message) -> Outcome:
        nonlocal calls
        calls += 1
        raise RuntimeError("a bug")

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            consumer = Consumer(client, EVENTS, durable("t", ["evt.>"]), handle)
            await consumer.start()
            await js.publish("evt.h.a.b", b"x")

            async def put_back() -> bool:
                info = await js.consumer_info(EVENTS, "t")
                # who looks late may find it delivered again
                return calls >= 1 and info.num_ack_pending == 1

            await eventually(put_back)
            await consumer.stop()

    run(body())


def test_stop_hands_back_what_is_held(nats_server: EmbeddedServer) -> None:
    """Messages that a stopped consumer held are with the next one at once, not after ack_wait."""
    got: list[int] = []

    async def hang(message: Message) -> Outcome | Work:
        async def work() -> Outcome:
            await asyncio.Event().wait()
            return Ack()

        return work()

    async def take(message: Message) -> Outcome:
        got.append(message.seq)
        return Ack()

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            first = Consumer(client, EVENTS, durable("t", ["evt.>"]), hang)
            await first.start()
            for _ in range(5):
                await js.publish("evt.h.a.b", b"x")

            async def held() -> bool:
                return bool((await js.consumer_info(EVENTS, "t")).num_ack_pending == 5)

            await eventually(held)
            await first.stop(grace=0.01)
            second = Consumer(client, EVENTS, durable("t", ["evt.>"]), take)
            await second.start()
            await eventually(lambda: sorted(got) == [1, 2, 3, 4, 5])
            await second.stop()

    run(body())


def test_survives_a_broker_restart(nats_server: EmbeddedServer) -> None:
    """After kill -9 and a restart of the broker the same consumer goes on with new messages."""
    got: list[bytes] = []

    async def handle(message: Message) -> Outcome:
        got.append(message.data)
        return Ack()

    async def body() -> None:
        async with mesh_client() as client:
            consumer = Consumer(client, EVENTS, durable("t", ["evt.>"]), handle)
            await consumer.start()
            await client.jetstream().publish("evt.h.a.b", b"1")
            await eventually(lambda: got == [b"1"])
            await restart(client, nats_server)
            await client.jetstream().publish("evt.h.a.b", b"2")
            # the first may come again behind it: its acknowledgement may not have got through
            await eventually(lambda: b"2" in got)
            await consumer.stop()

    run(body())


@pytest.mark.slow
def test_deleted_consumer_is_made_again(nats_server: EmbeddedServer) -> None:
    """A consumer that somebody deleted is created again, and new messages arrive."""
    got: list[bytes] = []

    async def handle(message: Message) -> Outcome:
        got.append(message.data)
        return Ack()

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            consumer = Consumer(client, EVENTS, durable("t", ["evt.>"]), handle)
            await consumer.start()
            await js.delete_consumer(EVENTS, "t")

            async def there() -> bool:
                try:
                    await js.consumer_info(EVENTS, "t")
                except Exception:
                    return False
                return True

            await eventually(there)
            await js.publish("evt.h.a.b", b"1")
            await eventually(lambda: got == [b"1"])
            await consumer.stop()

    run(body())
