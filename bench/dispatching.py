"""Dispatch: stored events through the owner of a profile, as the handlers run it.

Four figures, from little to all: events that no condition lets through; events that fire, with
their records; a keyed debounce, whose windows have to survive; and whole runs, which besides write
each run to the ledger before and after, and its result as an event. The first and the second are
measured beside a plain fetch, the third beside what it would cost to keep a window in KV with
compare-and-set for every event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import msgspec
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from figure import Figure, FigureError, Target, alternate
from lab import HOST, Lab, broker, connected, until
from opsmesh.handlers.actions.contract import StepContext, StepResult
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.deciding import Deciding
from opsmesh.handlers.live.position import Cursor, Positions
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.profiles.profile import Profile, load_profiles
from opsmesh.handlers.profiles.steps import Step
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.handlers.runs.runs import Runs, Services
from opsmesh.router import paths, tasks
from opsmesh.router.publish import Publisher
from opsmesh.router.topology import EVENTS, WINDOWS
from opsmesh.schemas.envelope import Event, encode, subject
from samples import TOPIC, registry, store

#: Messages that plain nats-py asks for at once.
FETCH: Final = 1000
#: Runs of the measured profile that may be under way at once.
CONCURRENCY: Final = 64

SUBJECT: Final = f"evt.*.{TOPIC}"
PROFILES: Final = f"""\
version: 1
profiles:
  missing:
    on: [{TOPIC}]
    where: event.payload.tool == "mypy" && event.payload.count > 0
    actions: [command: ["true"]]
  firing:
    on: [{TOPIC}]
    where: event.payload.tool == "ruff" && event.payload.count > 0
    concurrency: {{limit: {CONCURRENCY}}}
    actions: [command: ["true"]]
  bursts:
    on: [{TOPIC}]
    debounce: {{window: 1m, key: payload.path}}
    actions: [command: ["true"]]
"""

_rounds = count(1)


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


async def deciding(lab: Lab) -> list[Figure]:
    """What an owner decides and writes, without runs."""
    amount = lab.amount(15_000)
    few = lab.amount(2_000)
    figures = []
    with broker():
        async with connected() as client:
            await store(client, amount)

            async def fetched(n: int) -> float:
                return await _fetch(client, f"plain-{n}", amount)

            async def compared(n: int) -> float:
                return await _compare_and_set(client, f"cas-{n}", few)

            for name, measured, what, plain, beside, target in (
                (
                    *("dispatch", "missing", "decode, decide (CEL, false)"),
                    *(fetched, f"fetch({FETCH}) and an ack each"),
                    Target(of="ratio", at="least", limit=3.0),
                ),
                (
                    *("decide_fire", "firing", "decode, decide (CEL, true), the record on disk"),
                    *(fetched, f"fetch({FETCH}) and an ack each"),
                    None,
                ),
                (
                    *("decide_burst", "bursts", "keyed debounce: record and window on disk"),
                    *(compared, "fetch, KV get and compare-and-set for each event"),
                    Target(of="ratio", at="least", limit=3.0),
                ),
            ):
                chosen = profile(measured)

                async def ours(n: int, chosen: Profile = chosen) -> float:
                    return await _own(client, chosen, amount, act=False)

                our_rates, plain_rates = await alternate(lab.rounds, ours, plain)
                figures.append(
                    Figure(
                        name=name,
                        what=what,
                        unit="events/s",
                        ours=our_rates,
                        beside=beside,
                        plain=plain_rates,
                        target=target,
                        details={"events_a_round": amount},
                    )
                )
    return figures


async def runner(lab: Lab) -> list[Figure]:
    """An owner and everything that a run leaves behind."""
    amount = lab.amount(1_000)
    firing = profile("firing")
    with broker():
        async with connected() as client:
            await store(client, amount)

            async def ours(n: int) -> float:
                return await _own(client, firing, amount, act=True)

            async def plain(n: int) -> float:
                return await _fetch(client, f"plain-{n}", amount)

            our_rates, plain_rates = await alternate(lab.rounds, ours, plain)
    return [
        Figure(
            name="dispatch_runner",
            what="the same with ledger, no-op action and result event",
            unit="events/s",
            ours=our_rates,
            beside=f"fetch({FETCH}) and an ack each",
            plain=plain_rates,
            details={"events_a_round": amount, "concurrency": CONCURRENCY},
        )
    ]


async def _own(client: Client, measured: Profile, amount: int, *, act: bool) -> float:
    """Events a second, from taking the position until everything is decided and what has to be
    written is (and, with `act`, every run has succeeded)."""
    # the ledger and the positions know a profile: one of another name does everything anew
    named = replace(measured, name=f"{measured.name}-{next(_rounds)}")
    named = replace(named, rule=msgspec.structs.replace(named.rule, name=named.name))
    consumer = consumer_name(named, HOST)
    own = services(client)
    start = Cursor(seq=0, owner="bench", count=0, at_us=0)
    revision = await Positions(client).write(consumer, start, 0)
    last = (await client.jetstream().get_last_msg(EVENTS, SUBJECT)).seq or 0
    runs = Runs(named, own) if act else None
    owner = Deciding(
        named,
        own,
        consumer=consumer,
        owner="bench",
        recorder=Recorder(client),
        runs=runs,
    )
    began = time.perf_counter()
    await owner.begin(start, revision)
    work = asyncio.create_task(owner.work())
    try:
        # a miss is nothing to write, and how far the owner is can wait
        missing = measured.name == "missing"

        def done() -> bool:
            return (owner.decided if missing else owner.cursor.seq) >= last

        await until(lambda: work.done() or done(), f"{consumer} to be done")
    finally:
        failed = work.done()
        await tasks.end([work])
        await owner.end()
    if failed:
        raise FigureError(f"{consumer} ended: {work.exception()}")
    if runs is not None:
        await until(lambda: not runs.under_way, f"runs of {named.name} to end")
    rate = amount / (time.perf_counter() - began)
    if runs is not None:
        states = Counter([run.state async for run in Ledger(client).runs(named.name)])
        if states != {"succeeded": amount}:
            raise FigureError(f"{amount} runs should have succeeded: {dict(states)}")
    await client.jetstream().delete_consumer(EVENTS, consumer)
    return rate


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
    await _all_acked(client, name)
    rate = amount / (time.perf_counter() - began)
    await pull.unsubscribe()
    await js.delete_consumer(EVENTS, name)
    return rate


async def _compare_and_set(client: Client, name: str, amount: int) -> float:
    """A window in KV for each event: read it, write it over its revision, acknowledge."""
    js = client.jetstream()
    bucket = await js.key_value(WINDOWS)
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=2 * FETCH)
    began = time.perf_counter()
    pull = await js.pull_subscribe(SUBJECT, durable=name, stream=EVENTS, config=config)
    left = amount
    while left:
        for msg in await pull.fetch(min(FETCH, left), timeout=10):
            payload = json.loads(msg.data)["payload"]
            key = f"{name}.{payload['path'].replace('/', '_').replace('.', '_')}"
            window = json.dumps({"last": msg.metadata.timestamp.timestamp()}).encode()
            with contextlib.suppress(Exception):
                entry = await bucket.get(key)
                await bucket.update(key, window, last=entry.revision)
                await msg.ack()
                left -= 1
                continue
            await bucket.create(key, window)
            await msg.ack()
            left -= 1
    rate = amount / (time.perf_counter() - began)
    await pull.unsubscribe()
    await js.delete_consumer(EVENTS, name)
    return rate


async def _all_acked(client: Client, name: str) -> None:
    async def acked() -> bool:
        info = await client.jetstream().consumer_info(EVENTS, name)
        return not (info.num_pending or info.num_ack_pending)

    await until(acked, f"acknowledgements of {name}")


def profile(name: str) -> Profile:
    """The profile as its file says, with an action that does nothing."""
    config = Path(paths.config_dir())
    config.mkdir(parents=True, exist_ok=True)
    (config / "profiles.yaml").write_text(PROFILES)
    found = load_profiles(config)
    if found.errors:
        raise FigureError(str(found.errors[0]))
    steps: Sequence[Step] = (Step(id="nothing", action=Nothing()),)
    return replace(found.profiles[name], steps=tuple(steps))


def services(client: Client) -> Services:
    events = Publisher(client)

    async def publish(event: Event) -> None:
        await events.publish(subject(event.host, event.topic), encode(event), msg_id=event.id)

    return Services(
        client=client,
        ledger=Ledger(client),
        registry=registry(),
        host=HOST,
        bundles=Path(paths.bundles_dir()),
        workdirs=Path(paths.state_dir(), "work"),
        publish=publish,
    )
