"""Latency: from the call that publishes an event to the first line of what handles it.

Publisher and handler have a connection each, as in a running mesh, but share one process, so that
one monotonic clock times both ends. Ours decodes and decides on the way.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy, Header

from figure import Figure, FigureError, Target, percentile
from lab import HOST, Lab, broker, connected
from opsmesh.router.conditions import Expression
from opsmesh.router.consume import Ack, Consumer, Message, Outcome, Work, durable
from opsmesh.router.decide import Rule, State, decide
from opsmesh.router.publish import Publisher
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import decode
from samples import OTHER_TOPIC, TOPIC, messages, registry


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
            consumer = Consumer(
                receiving, EVENTS, durable("ours", [f"evt.*.{TOPIC}"]), _handler(our_arrival)
            )

            async def callback(_: Msg) -> None:
                plain_arrival.note()

            await consumer.start()
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
                await consumer.stop()
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


def _handler(arrival: Arrival) -> Any:
    topics = registry()
    rule = Rule(
        name="measured",
        hash="",
        on=(TOPIC,),
        where=Expression('event.payload.tool == "ruff"'),
    )

    async def action() -> Outcome:
        arrival.note()
        return Ack()

    async def handle(message: Message) -> Outcome | Work:
        stored = (EVENTS, message.seq, message.stored_us)
        event = topics.upcast(decode(message.data, stored=stored))
        decision, _ = decide(rule, event, State(), now_us=message.stored_us, host=HOST)
        if decision.outcome != "fire":
            raise FigureError(f"not fired: {decision.reason}")
        return action()

    return handle


async def _soon(when: asyncio.Future[float]) -> float:
    async with asyncio.timeout(10):
        return await when
