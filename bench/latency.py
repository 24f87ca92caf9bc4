"""Latency: from the call that publishes an event to the first line of the action that it runs.

Publisher and handler have a connection each, as in a running mesh, but share one process, so that
one monotonic clock times both ends. Ours is all that handlers do before an action begins: read,
decode, decide, and put the run into the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy, Header

import dispatching
from figure import Figure, Target, percentile
from lab import HOST, Lab, broker, connected, until
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.deciding import Deciding
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.steps import Step
from opsmesh.handlers.runs.runs import Runs
from opsmesh.router import tasks
from opsmesh.router.intake import Message
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


class FirstLine(dispatching.Nothing):
    """An action whose first line tells that it is reached."""

    arrival: Arrival

    async def run(self, ctx: StepContext) -> StepResult:
        self.arrival.note()
        return await super().run(ctx)


class Handlers:
    """Owners of profiles in this process, and the time from publishing to their actions."""

    def __init__(self, sending: Client, receiving: Client) -> None:
        self._publisher = Publisher(sending)
        self._services = dispatching.services(receiving)
        self._recorder = Recorder(receiving)
        self._arrival = Arrival()
        self._runs: list[Runs] = []
        self._owners: list[tuple[Deciding, asyncio.Task[None]]] = []

    async def own(self, profile: Profile) -> None:
        """Decide for one more profile, whose action is replaced by FirstLine."""
        action = FirstLine()
        action.arrival = self._arrival
        profile = replace(profile, steps=(Step(id="first", action=action),))
        runs = Runs(profile, self._services)
        owner = Deciding(
            profile,
            self._services,
            consumer=consumer_name(profile, HOST),
            owner="bench",
            recorder=self._recorder,
            runs=runs,
        )
        await owner.begin(None, 0)
        self._runs.append(runs)
        self._owners.append((owner, asyncio.create_task(owner.work())))

    async def end(self) -> None:
        """Let go of every profile."""
        await tasks.end(work for _, work in self._owners)
        for owner, _ in self._owners:
            await owner.end()

    async def took_us(self, message: Message) -> float:
        """From the call that publishes to the action's first line; returns when the run is over."""
        when, began = self._arrival.expect(), time.perf_counter()
        await self._publisher.publish(message.subject, message.data, msg_id=message.id)
        took = (await _soon(when) - began) * 1e6
        await until(lambda: not any(runs.under_way for runs in self._runs), "the run to end")
        return took


@asynccontextmanager
async def handlers(profiles: Iterable[Profile]) -> AsyncIterator[tuple[Client, Client, Handlers]]:
    """Two connections, and owners of these profiles over the second."""
    async with connected() as sending, connected() as receiving:
        owned = Handlers(sending, receiving)
        try:
            for profile in profiles:
                await owned.own(profile)
            yield sending, receiving, owned
        finally:
            await owned.end()


def renamed(profile: Profile, name: str, topic: str) -> Profile:
    """The same profile under another name, for another topic."""
    rule = msgspec.structs.replace(profile.rule, name=name, on=(topic,))
    return replace(profile, name=name, rule=rule)


async def latency(lab: Lab) -> list[Figure]:
    """p50 and p99 of one event at a time."""
    amount = lab.amount(400)
    rounds: list[tuple[list[float], list[float]]] = []
    with broker():
        profile = dispatching.profile("firing")
        async with handlers([profile]) as (sending, receiving, owned):
            plain_arrival = Arrival()
            js = sending.jetstream()

            async def callback(_: Msg) -> None:
                plain_arrival.note()

            push = await receiving.jetstream().subscribe(
                f"evt.*.{OTHER_TOPIC}",
                stream=EVENTS,
                cb=callback,
                deliver_policy=DeliverPolicy.NEW,
            )
            for _ in range(lab.rounds):
                ours: list[float] = []
                plain: list[float] = []
                pairs = zip(messages(amount), messages(amount, OTHER_TOPIC), strict=True)
                for own, other in pairs:
                    ours.append(await owned.took_us(own))
                    headers: dict[str, Any] = {Header.MSG_ID.value: other.id}
                    when, began = plain_arrival.expect(), time.perf_counter()
                    await js.publish(other.subject, other.data, headers=headers)
                    plain.append((await _soon(when) - began) * 1e6)
                rounds.append((ours, plain))
            await push.unsubscribe()
    return [
        Figure(
            name=f"latency_p{share}",
            what=f"publish until the action's first line, p{share}",
            unit="µs",
            ours=[percentile(ours, share / 100) for ours, _ in rounds],
            beside="publish, push subscription with a callback",
            plain=[percentile(plain, share / 100) for _, plain in rounds],
            target=Target(of="ratio", at="most", limit=limit),
            details={"events_a_round": amount},
        )
        for share, limit in ((50, 1.3), (99, 2.0))
    ]


async def _soon(when: asyncio.Future[float]) -> float:
    async with asyncio.timeout(10):
        return await when
