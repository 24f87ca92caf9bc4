"""Several handler processes decide a profile as one."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, run
from tests.handlers.handlers_process import handlers, owner_of
from tests.handlers.mesh import write_profiles

from opsmesh.handlers.live.deciding import Deciding
from opsmesh.handlers.live.position import Cursor, Positions
from opsmesh.handlers.live.records import records
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.handlers.server import Server
from opsmesh.router import paths, topology
from opsmesh.router.decide import Decision
from opsmesh.router.decider import Decider
from opsmesh.router.publish import Publisher
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode, encode, subject

PROFILES = """
profiles:
  bursts:
    on: service.start.failed
    debounce: {window: 100ms, max_wait: 1s, key: payload.unit}
    concurrency: {limit: 16}
    actions: [emit: {topic: my.burst, payload: {unit: "${{ event.payload.unit }}"}}]
"""


def failure(settings: Settings, unit: str) -> Event:
    """One event of a unit."""
    event_id = ids.uuid7()
    return Event(
        topic="service.start.failed",
        ts_utc=times.format_us(times.now_us()),
        source="test",
        component="test",
        severity="error",
        correlation_id=event_id,
        host=settings.host,
        session_id="",
        workspace="",
        payload={"unit": unit},
        id=event_id,
    )


async def publish(client: Client, settings: Settings, count: int, *, keys: int, seed: int) -> None:
    """Events of many units, in bursts."""
    publisher = Publisher(client)
    chance = random.Random(seed)
    for _ in range(count // 50):
        events = [failure(settings, f"u{chance.randrange(keys)}.service") for _ in range(50)]
        for event in events:
            await publisher.publish(
                subject(event.host, event.topic), encode(event), msg_id=event.id
            )


async def by_one(client: Client, settings: Settings, profile: str) -> list[Decision]:
    """What one process decides of the same stream."""
    chosen = load_profiles(Path(paths.config_dir())).profiles[profile]
    decider = Decider(chosen.rule, host=settings.host)
    decisions = []
    async for msg in scan(client, EVENTS, subjects=["evt.*.service.start.failed"]):
        where = delivery(msg.reply)
        stored_us = where.timestamp_ns // 1000
        decisions += list(decider.advance(stored_us))
        event = decode(msg.data)
        one = decider.decide(event, seq=where.stream_seq, stored_us=stored_us)
        assert one is not None
        decisions.append(one)
    return decisions


async def decided_as_by_one(client: Client, settings: Settings) -> None:
    """Return once all is decided and run: the records, the runs and what they did are those of one
    process that was never disturbed."""
    last = await client.jetstream().get_last_msg(EVENTS, "evt.*.service.start.failed")

    async def decided() -> bool:
        cursor, _ = await Positions(client).cursor(consumer(settings))
        return cursor is not None and cursor.seq >= (last.seq or 0)

    await eventually(decided)
    wanted = await by_one(client, settings, "bursts")
    live = [record async for record in records(client, profile="bursts")]
    assert sorted(r.data for r in live) == sorted(d.encode() for d in wanted)
    firings = sorted(d.event_id for d in wanted if d.outcome == "fire")

    async def all_done() -> bool:
        done = [run async for run in Ledger(client).runs("bursts") if run.finished]
        return len(done) == len(firings)

    await eventually(all_done)
    emitted = [decode(m.data) async for m in scan(client, EVENTS, subjects=["evt.*.my.burst"])]
    assert sorted(event.causation_id or "" for event in emitted) == firings


def consumer(settings: Settings) -> str:
    """The consumer of the profile here."""
    return f"profile-bursts-on-{settings.host}"


@pytest.mark.slow
def test_two_processes_decide_as_one(
    nats_server: EmbeddedServer, home: Path, tmp_path: Path
) -> None:
    """10,000 events over 50 keys, decided by two processes of which the owner is killed in the
    middle: the firings of one process, each run once."""
    settings = Settings()
    write_profiles(PROFILES)

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                processes.start()
                processes.start()
                first = await owner_of(client, consumer(settings))
                await publish(client, settings, 5000, keys=50, seed=1)
                processes.kill(first["pid"])
                await publish(client, settings, 5000, keys=50, seed=2)
                second = await owner_of(client, consumer(settings))
                assert second["pid"] != first["pid"]
                await decided_as_by_one(client, settings)

    run(body(), timeout=180)


def test_an_owner_that_slept_is_fenced_off(
    nats_server: EmbeddedServer, home: Path, tmp_path: Path
) -> None:
    """An owner that hangs is replaced; when it wakes up, with events unread, it writes nothing,
    steps back, and the two still decide as one."""
    settings = Settings()
    write_profiles(PROFILES)

    async def body() -> None:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                processes.start()
                processes.start()
                first = await owner_of(client, consumer(settings))
                await publish(client, settings, 500, keys=50, seed=1)
                processes.pause(first["pid"])
                await publish(client, settings, 500, keys=50, seed=2)
                second = await owner_of(client, consumer(settings))
                assert second["pid"] != first["pid"]
                await publish(client, settings, 500, keys=50, seed=3)
                processes.go_on(first["pid"])
                await eventually(lambda: "profile.fenced" in processes.said())
                await publish(client, settings, 500, keys=50, seed=4)
                assert (await owner_of(client, consumer(settings)))["pid"] == second["pid"]
                await decided_as_by_one(client, settings)

    run(body(), timeout=180)


def test_an_owner_that_could_not_begin_tries_again(
    nats_server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose first try ends before it has taken the position does not go on to answer for
    it: it owns the profile once it can."""
    failed: list[Exception] = []
    begin = Deciding.begin

    async def noted(self: Deciding, found: Cursor | None, revision: int) -> None:
        try:
            await begin(self, found, revision)
        except Exception as error:
            failed.append(error)
            raise

    monkeypatch.setattr(Deciding, "begin", noted)
    settings = Settings()
    write_profiles(PROFILES)

    async def body() -> None:
        async with mesh_client(settings) as client:
            js = client.jetstream()
            await js.delete_stream(EVENTS)
            server = Server(client, settings)
            starting = asyncio.create_task(server.start())
            await eventually(lambda: failed)
            await topology.ensure(js, settings, topology.Known(home / "another.json"))
            await starting
            await asyncio.wait_for(server.owned(), 60)
            await server.stop()

    run(body())
