"""Dispatch: stored events through a durable consumer to an action that does nothing.

Two figures: the engine (decode, decide with a CEL condition that is true, an action, an
acknowledgement) and the whole profile runner, which besides writes each run to the ledger before
and after, its result as an event, and its decision as a record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from figure import Figure, FigureError, Target, alternate
from lab import HOST, Lab, broker, connected, until
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.ledger import Ledger
from opsmesh.handlers.profiles import Profile, Step, load_profiles
from opsmesh.handlers.records import Recorder
from opsmesh.handlers.runner import ProfileRunner, Services
from opsmesh.handlers.windows import Windows
from opsmesh.router import paths
from opsmesh.router.consume import Ack, Consumer, Message, Outcome, Work, durable
from opsmesh.router.decide import Rule, State, decide
from opsmesh.router.publish import Publisher
from opsmesh.router.topology import DECISIONS, EVENTS
from opsmesh.schemas.envelope import Event, decode, encode, subject
from samples import TOPIC, registry, store

#: Messages that plain nats-py asks for at once.
FETCH: Final = 1000
#: Runs of the measured profile that may be under way at once.
CONCURRENCY: Final = 64

SUBJECT: Final = f"evt.*.{TOPIC}"
PROFILE: Final = f"""\
version: 1
profiles:
  measured:
    owner: bench
    on: [{TOPIC}]
    where: event.payload.tool == "ruff" && event.payload.count > 0
    concurrency: {{limit: {CONCURRENCY}}}
    actions:
      - command: ["true"]
"""


class Nothing:
    """An action that does nothing: what remains is the mesh's own work."""

    key: ClassVar[str] = "nothing"

    @classmethod
    def parse(cls, value: Any) -> Self:
        return cls()

    def describe(self) -> dict[str, Any]:
        return {}

    async def run(self, ctx: StepContext) -> StepResult:
        return StepResult(ok=True, output={})


async def engine(lab: Lab) -> list[Figure]:
    """Decode, decide, act, acknowledge."""
    amount = lab.amount(15_000)
    rule, topics = _profile().rule(), registry()
    with broker():
        async with connected() as client:
            await store(client, amount)

            async def ours(n: int) -> float:
                return await _consume(client, f"ours-{n}", amount, lambda act: _handler(rule, act))

            def _handler(rule: Rule, act: Callable[[], Outcome]) -> Handle:
                async def action() -> Outcome:
                    return act()

                async def handle(message: Message) -> Outcome | Work:
                    stored = (EVENTS, message.seq, message.stored_us)
                    event = topics.upcast(decode(message.data, stored=stored))
                    now_us = message.stored_us
                    decision, _ = decide(rule, event, State(), now_us=now_us, host=HOST)
                    if decision.outcome != "fire":
                        raise FigureError(f"not fired: {decision.reason}")
                    return action()

                return handle

            async def plain(n: int) -> float:
                return await _fetch(client, f"plain-{n}", amount)

            our_rates, plain_rates = await alternate(lab.rounds, ours, plain)
    return [
        Figure(
            name="dispatch",
            what="decode, decide (CEL), no-op action, ack",
            unit="events/s",
            ours=our_rates,
            beside=f"fetch({FETCH}) and an ack each",
            plain=plain_rates,
            target=Target(of="ratio", at="least", limit=3.0),
            details={"events_a_round": amount},
        )
    ]


async def runner(lab: Lab) -> list[Figure]:
    """The engine, and everything that a run leaves behind."""
    amount = lab.amount(1_000)
    profile = _profile()
    with broker():
        async with connected() as client:
            await store(client, amount)
            recorder = Recorder(Publisher(client, stream=DECISIONS), host=HOST)
            recording = asyncio.create_task(recorder.run())
            services = _services(client, recorder)

            async def ours(n: int) -> float:
                # the ledger knows a profile's runs: a profile of another name does them anew
                runs = ProfileRunner(replace(profile, name=f"measured-{n}"), services)

                def handler(act: Callable[[], Outcome]) -> Handle:
                    async def work(inner: Work) -> Outcome:
                        outcome = await inner
                        if not isinstance(outcome, Ack):
                            raise FigureError(f"the run ended with {outcome}")
                        return act()

                    async def handle(message: Message) -> Outcome | Work:
                        result = await runs.handle(message)
                        if isinstance(result, Outcome):
                            raise FigureError(f"no run began: {result}")
                        return work(result)

                    return handle

                return await _consume(client, f"runner-{n}", amount, handler)

            async def plain(n: int) -> float:
                return await _fetch(client, f"plain-{n}", amount)

            try:
                our_rates, plain_rates = await alternate(lab.rounds, ours, plain)
            finally:
                recording.cancel()
                await asyncio.gather(recording, return_exceptions=True)
    return [
        Figure(
            name="dispatch_runner",
            what="the same with ledger, result event and decision record",
            unit="events/s",
            ours=our_rates,
            beside=f"fetch({FETCH}) and an ack each",
            plain=plain_rates,
            details={"events_a_round": amount, "concurrency": CONCURRENCY},
        )
    ]


Handle = Callable[[Message], Awaitable[Outcome | Work]]


async def _consume(
    client: Client,
    name: str,
    amount: int,
    handler: Callable[[Callable[[], Outcome]], Handle],
) -> float:
    """Events a second, from the start of our consumer until the broker has every ack."""
    left = amount
    done = asyncio.Event()

    def act() -> Outcome:
        nonlocal left
        left -= 1
        if not left:
            done.set()
        return Ack()

    consumer = Consumer(
        client,
        EVENTS,
        durable(name, [SUBJECT], all_stored=True),
        handler(act),
        concurrency=CONCURRENCY,
    )
    began = time.perf_counter()
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            await done.wait()
        await _all_acked(client, name, amount)
        return amount / (time.perf_counter() - began)
    finally:
        await consumer.stop()
        await client.jetstream().delete_consumer(EVENTS, name)


async def _fetch(client: Client, name: str, amount: int) -> float:
    """The same with what nats-py offers: fetch, and an ack each."""
    js = client.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=2 * FETCH)
    began = time.perf_counter()
    pull = await js.pull_subscribe(SUBJECT, durable=name, stream=EVENTS, config=config)
    left = amount
    while left:
        for msg in await pull.fetch(min(FETCH, left), timeout=10):
            await msg.ack()
            left -= 1
    await _all_acked(client, name, amount)
    rate = amount / (time.perf_counter() - began)
    await pull.unsubscribe()
    await js.delete_consumer(EVENTS, name)
    return rate


async def _all_acked(client: Client, name: str, amount: int) -> None:
    async def acked() -> bool:
        info = await client.jetstream().consumer_info(EVENTS, name)
        return not (info.num_pending or info.num_ack_pending)

    await until(acked, f"{amount} acknowledgements of {name}")


def _profile() -> Profile:
    """The profile as its file says, with an action that does nothing."""
    config = Path(paths.config_dir())
    config.mkdir(parents=True, exist_ok=True)
    (config / "profiles.yaml").write_text(PROFILE)
    found = load_profiles(config)
    if found.errors:
        raise FigureError(str(found.errors[0]))
    profile = found.profiles["measured"]
    return replace(profile, steps=(Step(id="nothing", action=Nothing()),))


def _services(client: Client, recorder: Recorder) -> Services:
    events = Publisher(client)

    async def publish(event: Event) -> None:
        await events.publish(subject(event.host, event.topic), encode(event), msg_id=event.id)

    return Services(
        client=client,
        ledger=Ledger(client),
        windows=Windows(client),
        registry=registry(),
        host=HOST,
        bundles=Path(paths.bundles_dir()),
        workdirs=Path(paths.state_dir(), "work"),
        publish=publish,
        record=recorder.record,
    )
