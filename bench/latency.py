"""Latency: from the call that publishes an event to the first line of what handles it.

Publisher and handler have a connection each, as in a running mesh, but share one process, so that
one monotonic clock times both ends. Ours is what handlers do: decode, decide, and write the record
and the run to disk before it begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy, Header

import dispatching
from figure import Figure, Target, percentile
from lab import HOST, Lab, broker, connected
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.deciding import Deciding
from opsmesh.handlers.live.firing import Stored
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.runs.ledger import Held
from opsmesh.handlers.runs.runs import Runs
from opsmesh.router import tasks
from opsmesh.router.publish import Publisher
from opsmesh.router.topology import EVENTS
from samples import OTHER_TOPIC, messages


class Arrival:
    """When the event that is under way reached its handler, in seconds of `perf_counter`."""

    def __init__(self) -> None:
        self._when: asyncio.Future[float] | None = None

    def expect(self) -> asyncio.Future[float]:
        """What will hold the time of the next arrival."""
        self._when = asyncio.get_running_loop().create_future()
        return self._when

    def note(self) -> None:
        """It is here."""
        now = time.perf_counter()
        if self._when is not None and not self._when.done():
            self._when.set_result(now)


async def latency(lab: Lab) -> list[Figure]:
    """p50 and p99 of one event at a time."""
    amount = lab.amount(400)
    rounds: list[tuple[list[float], list[float]]] = []
    with broker():
        async with connected() as sending, connected() as receiving:
            publisher, js = Publisher(sending), sending.jetstream()
            our_arrival, plain_arrival = Arrival(), Arrival()
            owner = await _owner(receiving, our_arrival)

            async def callback(_: Msg) -> None:
                plain_arrival.note()

            work = asyncio.create_task(owner.work())
            push = await receiving.jetstream().subscribe(
                f"evt.*.{OTHER_TOPIC}",
                stream=EVENTS,
                cb=callback,
                deliver_policy=DeliverPolicy.NEW,
            )
            try:
                for _ in range(lab.rounds):
                    ours: list[float] = []
                    plain: list[float] = []
                    pairs = zip(messages(amount), messages(amount, OTHER_TOPIC), strict=True)
                    for own, other in pairs:
                        when, began = our_arrival.expect(), time.perf_counter()
                        await publisher.publish(own.subject, own.data, msg_id=own.id)
                        ours.append((await _soon(when) - began) * 1e6)
                        headers: dict[str, Any] = {Header.MSG_ID.value: other.id}
                        when, began = plain_arrival.expect(), time.perf_counter()
                        await js.publish(other.subject, other.data, headers=headers)
                        plain.append((await _soon(when) - began) * 1e6)
                    rounds.append((ours, plain))
            finally:
                await push.unsubscribe()
                await tasks.end([work])
                await owner.end()
    return [
        Figure(
            name=f"latency_p{share}",
            what=f"publish until the handler's first line, p{share}",
            unit="µs",
            ours=[percentile(ours, share / 100) for ours, _ in rounds],
            beside="publish, push subscription with a callback",
            plain=[percentile(plain, share / 100) for _, plain in rounds],
            target=Target(of="ratio", at="most", limit=limit),
            details={"events_a_round": amount},
        )
        for share, limit in ((50, 1.3), (99, 2.0))
    ]


class _Arrivals(Runs):
    """Runs that only tell when they would have begun."""

    arrival: Arrival

    def begin(self, held: Held, events: Sequence[Stored] = ()) -> None:
        self.arrival.note()


async def _owner(client: Client, arrival: Arrival) -> Deciding:
    profile = dispatching.profile("firing")
    services = dispatching.services(client)
    runs = _Arrivals(profile, services)
    runs.arrival = arrival
    owner = Deciding(
        profile,
        services,
        consumer=consumer_name(profile, HOST),
        owner="bench",
        recorder=Recorder(client),
        runs=runs,
    )
    await owner.begin(None, 0)
    return owner


async def _soon(when: asyncio.Future[float]) -> float:
    async with asyncio.timeout(10):
        return await when
