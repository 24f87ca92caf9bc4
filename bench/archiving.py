"""The evidence sink, and both ways back: replay from the stream and from the archive.

The sink is measured from outside, as the process that a mesh runs: from the first line in its
archive to the broker's knowledge that the last one is there.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from figure import Figure, FigureError, Target, alternate
from lab import Lab, broker, check_runs, connected, process, until
from opsmesh.handlers.evidence.reader import read
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.sink_consumer import name as sink_consumer
from opsmesh.router.topology import EVENTS
from samples import store

#: The sink's consumer.
CONSUMER: Final = sink_consumer(Settings().host)
#: Messages that plain nats-py asks for at once.
FETCH: Final = 1000
#: Events below which the sink is done before anybody has looked.
FEWEST: Final = 10_000


async def sink(lab: Lab) -> list[Figure]:
    """Stored events to hash-chained JSONL, synced before they are acknowledged."""
    amount = lab.amount(40_000, least=FEWEST)
    with broker():
        async with connected() as client:
            await store(client, amount)

            async def ours(n: int) -> float:
                return await _archive(client, lab.folder / f"evidence-{n}", amount)

            async def plain(n: int) -> float:
                return await _fetch(client, f"plain-{n}", amount)

            our_rates, plain_rates = await alternate(lab.rounds, ours, plain)
    return [
        Figure(
            name="sink",
            what="stored events to hash-chained JSONL with fsync",
            unit="events/s",
            ours=our_rates,
            beside=f"fetch({FETCH}) and ack-all, nothing written",
            plain=plain_rates,
            target=Target(of="ratio", at="least", limit=2.0),
            details={"events_a_round": amount},
        )
    ]


async def replay(lab: Lab) -> list[Figure]:
    """Every stored event in order, from the stream and from the archive."""
    amount = lab.amount(50_000, least=FEWEST)
    folder = lab.folder / "evidence"
    with broker():
        async with connected() as client:
            await store(client, amount)
            await _archive(client, folder, amount)

            async def stream(_: int) -> float:
                began = time.perf_counter()
                seen = 0
                async for _msg in scan(client, EVENTS):
                    seen += 1
                return _rate(seen, amount, began)

            async def plain(_: int) -> float:
                return await _ordered(client, amount)

            async def archive(_: int) -> float:
                began = time.perf_counter()
                seen = sum(1 for _archived in read(folder))
                return _rate(seen, amount, began)

            rates = await alternate(lab.rounds, stream, plain, archive)
    target = Target(of="value", at="least", limit=50_000)
    details = {"events_a_round": amount}
    return [
        Figure(
            name="replay_stream",
            what="every stored event in order, from the stream",
            unit="events/s",
            ours=rates[0],
            beside="ordered push subscription with a callback",
            plain=rates[1],
            target=target,
            details=details,
        ),
        Figure(
            name="replay_jsonl",
            what="the same from the archive",
            unit="events/s",
            ours=rates[2],
            target=target,
            details=details,
        ),
    ]


def _rate(seen: int, amount: int, began: float) -> float:
    rate = seen / (time.perf_counter() - began)
    if seen != amount:
        raise FigureError(f"{seen} events were read, {amount} are stored")
    return rate


async def _archive(client: Client, folder: Path, amount: int) -> float:
    """Events a second of a sink that has nothing yet and catches up."""
    js = client.jetstream()

    async def acked() -> bool:
        check_runs(running)
        try:
            info = await js.consumer_info(EVENTS, CONSUMER)
        except NotFoundError:
            return False
        return info.ack_floor is not None and info.ack_floor.stream_seq >= amount

    def begun() -> int:
        check_runs(running)
        return _size(folder)

    with process("sink", OPSMESH_EVIDENCE__FOLDER=str(folder)) as running:
        first: int = await until(begun, "the sink's first line")
        began = time.perf_counter()
        await until(acked, f"{amount} events in the archive")
        seconds = time.perf_counter() - began
    # What stood there at the first look was written before the clock started.
    counted = 1 - first / _size(folder)
    if not counted:
        raise FigureError(f"all {amount} events were in the archive at the first look")
    return amount * counted / seconds


def _size(folder: Path) -> int:
    """Bytes in the archive's segments."""
    return sum(path.stat().st_size for path in folder.rglob("*.jsonl"))


async def _fetch(client: Client, name: str, amount: int) -> float:
    """What nats-py offers to read a stream and confirm it: fetch, and one ack for the batch."""
    js = client.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.ALL, max_ack_pending=2 * FETCH)
    began = time.perf_counter()
    pull = await js.pull_subscribe("evt.>", durable=name, stream=EVENTS, config=config)
    left = amount
    while left:
        batch = await pull.fetch(min(FETCH, left), timeout=10)
        await batch[-1].ack()
        left -= len(batch)
    await client.flush()
    rate = amount / (time.perf_counter() - began)
    await pull.unsubscribe()
    await js.delete_consumer(EVENTS, name)
    return rate


async def _ordered(client: Client, amount: int) -> float:
    """The fastest way that nats-py offers to read a stream in order."""
    left = amount
    done = asyncio.Event()

    async def callback(_: Msg) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    began = time.perf_counter()
    push = await client.jetstream().subscribe(
        "evt.>", stream=EVENTS, cb=callback, ordered_consumer=True
    )
    async with asyncio.timeout(60):
        await done.wait()
    rate = _rate(amount - left, amount, began)
    await push.unsubscribe()
    return rate
