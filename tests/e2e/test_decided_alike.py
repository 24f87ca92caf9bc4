"""The same events, decided live by two processes that are killed, and by a backtest of the
evidence: the same bytes."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.backtest.backtest import backtest
from opsmesh.handlers.evidence import reader
from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.position import Positions
from opsmesh.handlers.live.records import records
from opsmesh.handlers.profiles.profile import Profile, load_profiles
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import paths
from opsmesh.router.decide import Decision
from opsmesh.router.publish import Publisher
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import decode, encode, subject
from opsmesh.schemas.registry import load_registry
from tests.conftest import eventually, mesh_client, run
from tests.handlers import generated
from tests.handlers.handlers_process import Processes, handlers, owner_of
from tests.handlers.mesh import write_profiles


async def _publish(client: Client, settings: Settings, seed: int, count: int) -> None:
    """In bursts, with pauses between them."""
    publisher = Publisher(client)
    chance = random.Random(seed)
    waiting = list(generated.events(seed, count, settings.host))
    while waiting:
        burst, waiting = waiting[: (size := chance.randint(1, 200))], waiting[size:]
        await asyncio.gather(
            *(publisher.publish(subject(e.host, e.topic), encode(e), msg_id=e.id) for e in burst)
        )
        await asyncio.sleep(chance.random() * 0.1)  # windows end by the broker's clock


async def _settled(client: Client, settings: Settings, chosen: list[Profile]) -> None:
    """Return once everything is decided and no window waits for its time."""

    async def still() -> bool:
        for profile in chosen:
            consumer = consumer_name(profile, settings.host)
            try:
                info = await client.jetstream().consumer_info(EVENTS, consumer)
            except NotFoundError:  # a new owner makes it anew
                return False
            windows = await Positions(client).windows(consumer)
            waits = any(window.due_us is not None for window in windows.values())
            if info.num_pending or info.num_ack_pending or waits:
                return False
        return True

    await eventually(still, timeout=120)


async def _ran_once(client: Client) -> None:
    """Return once each recorded firing has one run that succeeded, and its one event."""

    left: list[Run] = []

    async def there() -> bool:
        left[:] = [run async for run in Ledger(client).runs() if run.state != "succeeded"]
        return not left

    try:
        await eventually(there)
    except AssertionError as error:
        raise AssertionError(f"{len(left)} runs are left: {left[:3]}") from error
    fired = [r.decision async for r in records(client, firings=True)]
    runs = [run async for run in Ledger(client).runs()]
    wanted = sorted((d.profile, d.event_id) for d in fired)
    assert sorted((run.profile, run.event_id) for run in runs) == wanted
    found = [decode(m.data) async for m in scan(client, EVENTS, subjects=["evt.*.fired.*"])]
    made = sorted((e.topic.removeprefix("fired."), e.causation_id or "") for e in found)
    assert made == wanted


async def _replace_an_owner(
    client: Client, processes: Processes, consumer: str, *, kindly: bool
) -> None:
    owner = await owner_of(client, consumer)
    await asyncio.to_thread(processes.stop if kindly else processes.kill, owner["pid"])
    processes.start()


@pytest.mark.parametrize(
    ("count", "seed"), [(800, 11), pytest.param(20_000, 12, marks=pytest.mark.slow)]
)
def test_live_and_backtest(
    nats_server: EmbeddedServer, home: Path, tmp_path: Path, count: int, seed: int
) -> None:
    """Random profiles over random events, handlers killed and stopped in between: what was recorded
    live is, byte for byte, what a backtest of the evidence decides, and each firing ran once."""
    settings = Settings()
    write_profiles(generated.profiles(seed, 14))
    chosen = list(load_profiles(Path(paths.config_dir())).profiles.values())

    async def body() -> tuple[dict[str, list[bytes]], int]:
        async with mesh_client(settings) as client:
            with handlers(tmp_path / "logs") as processes:
                processes.start()
                processes.start()
                for profile in chosen:
                    await owner_of(client, consumer_name(profile, settings.host))
                for part in range(4):
                    await _publish(client, settings, seed + part, count // 4)
                    name = consumer_name(chosen[part], settings.host)
                    await _replace_an_owner(client, processes, name, kindly=part % 2 == 1)
                await _settled(client, settings, chosen)
                until_us = times.now_us()
                await _ran_once(client)
            live: dict[str, list[bytes]] = {profile.name: [] for profile in chosen}
            async for record in records(client):
                live[record.decision.profile].append(record.data)
            return live, until_us

    sink = subprocess.Popen(
        [sys.executable, "-m", "opsmesh.handlers.evidence.sink"], stdout=subprocess.DEVNULL
    )
    try:
        live, until_us = run(body(), timeout=240)
        folder = Path(paths.evidence_dir())
        run(eventually(lambda: _archived(folder) == count))
    finally:
        sink.terminate()
        sink.wait(60)
    wanted: dict[str, list[Decision]] = {profile.name: [] for profile in chosen}
    backtest(
        chosen,
        reader.read(folder),
        host=settings.host,
        until_us=until_us,
        keep=lambda decision: wanted[decision.profile].append(decision),
        upcast=load_registry().upcast,
    )
    assert sum(map(len, live.values())) > count / 2
    for profile in chosen:
        recorded = [d.encode() for d in wanted[profile.name] if not d.derivable]
        assert Counter(live[profile.name]) == Counter(recorded), profile.name


def _archived(folder: Path) -> int:
    return sum(1 for _ in reader.read(folder, topics=["my.>"]))
