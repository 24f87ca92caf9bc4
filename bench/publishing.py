"""Publishing: what the agent does with an event, and how long the broker's answer takes.

Ours includes completing, checking and redacting each event; plain nats-py is handed bytes that are
ready. Both write into the same stream of the same broker, with a message id.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

from nats.js.api import Header

from figure import Figure, Target, alternate
from lab import Lab, broker, connected
from opsmesh.router.publish import Publisher
from samples import IN_FLIGHT, intake, line, messages

_ID = Header.MSG_ID.value


async def many(lab: Lab) -> list[Figure]:
    """Events a second, thousands in flight."""
    our_amount, plain_amount = lab.amount(20_000), lab.amount(4_000)
    with broker():
        async with connected() as client:
            publisher, ready = Publisher(client), intake()
            js = client.jetstream(publish_async_max_pending=IN_FLIGHT)

            async def ours(_: int) -> float:
                lines = iter([line() for _ in range(our_amount)])

                async def work() -> None:
                    for one in lines:
                        message = ready.message(one)
                        await publisher.publish(message.subject, message.data, msg_id=message.id)

                began = time.perf_counter()
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(IN_FLIGHT, our_amount)):
                        group.create_task(work())
                return our_amount / (time.perf_counter() - began)

            async def plain(_: int) -> float:
                sent = messages(plain_amount)
                began = time.perf_counter()
                acks = [
                    await js.publish_async(one.subject, one.data, headers={_ID: one.id})
                    for one in sent
                ]
                await asyncio.gather(*acks)
                return plain_amount / (time.perf_counter() - began)

            our_rates, plain_rates = await alternate(lab.rounds, ours, plain)
    return [
        Figure(
            name="publish_many",
            what="complete, check, redact and publish, many in flight",
            unit="events/s",
            ours=our_rates,
            beside="publish_async of ready bytes",
            plain=plain_rates,
            target=Target(of="ratio", at="least", limit=6.0),
            details={
                "events_a_round": {"ours": our_amount, "plain": plain_amount},
                "in_flight": IN_FLIGHT,
                "event_bytes": len(messages(1)[0].data),
            },
        )
    ]


async def one(lab: Lab) -> list[Figure]:
    """From the call to the acknowledgement, one at a time."""
    amount = lab.amount(400)
    our_rounds: list[float] = []
    plain_rounds: list[float] = []
    with broker():
        async with connected() as client:
            publisher, ready, js = Publisher(client), intake(), client.jetstream()
            for _ in range(lab.rounds):
                lines, sent = [line() for _ in range(amount)], messages(amount)
                ours: list[float] = []
                plain: list[float] = []
                for written, other in zip(lines, sent, strict=True):
                    began = time.perf_counter()
                    message = ready.message(written)
                    await publisher.publish(message.subject, message.data, msg_id=message.id)
                    ended = time.perf_counter()
                    await js.publish(other.subject, other.data, headers={_ID: other.id})
                    plain.append((time.perf_counter() - ended) * 1e6)
                    ours.append((ended - began) * 1e6)
                our_rounds.append(median(ours))
                plain_rounds.append(median(plain))
    return [
        Figure(
            name="publish_one",
            what="the same one at a time, p50 until acknowledged",
            unit="µs",
            ours=our_rounds,
            beside="publish of ready bytes",
            plain=plain_rounds,
            target=Target(of="ratio", at="most", limit=1.15),
            details={"events_a_round": amount},
        )
    ]
