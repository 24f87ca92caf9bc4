"""Back-pressure: memory is bounded, who sends too fast waits, and it can be seen."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from tests.conftest import eventually, freeze, run, start_server
from tests.router.agent_process import Connection, agent, agent_says, until

from opsmesh.router import paths
from opsmesh.router.budget import Budget
from opsmesh.router.ingest import Ingest
from opsmesh.router.server import EmbeddedServer

#: Resident memory that the agent may have under any load, in MB: what it has at rest, and a few
#: times the budget of lines under way.
MAX_RSS = 260.0


def test_a_spent_budget_stops_the_reading(home: Path) -> None:
    """Lines beyond the budget stay with their sender; each connection goes on when there is room,
    and all answers come."""
    release = asyncio.Event()

    async def handle(line: bytes, too_long: bool) -> bytes:
        await release.wait()
        return line

    async def body() -> None:
        budget = Budget(100_000)
        ingest = Ingest(paths.ingest_socket(), handle, budget=budget)
        await ingest.start()
        ends = [await asyncio.open_unix_connection(ingest.path) for _ in range(3)]
        for _, writer in ends:
            writer.write((b"x" * 1000 + b"\n") * 200)
        await eventually(lambda: ingest.paused == 3)
        assert 90_000 < budget.used <= budget.limit
        release.set()
        for reader, writer in ends:
            for _ in range(200):
                assert len(await reader.readline()) == 1001
            writer.close()
        assert budget.used == 0
        assert ingest.pauses >= 3
        assert ingest.paused == 0
        await ingest.stop()

    run(body())


def test_a_line_larger_than_the_budget_is_taken_alone() -> None:
    """It waits until nothing else is under way, and nobody behind it passes."""

    async def body() -> None:
        budget = Budget(100)
        await budget.take(60)
        order: list[str] = []

        async def want(name: str, size: int) -> None:
            await budget.take(size)
            order.append(name)

        large = asyncio.create_task(want("large", 500))
        small = asyncio.create_task(want("small", 1))
        await eventually(lambda: budget.waiting == 2)
        budget.give(60)
        await large
        assert order == ["large"]
        budget.give(500)
        await small
        assert budget.used == 1

    run(body())


def test_who_stops_waiting_takes_nothing() -> None:
    """A cancelled wait gives its turn to the next."""

    async def body() -> None:
        budget = Budget(100)
        await budget.take(100)
        first, second = (asyncio.create_task(budget.take(80)) for _ in range(2))
        await eventually(lambda: budget.waiting == 2)
        first.cancel()
        budget.give(100)
        await second
        assert (budget.used, budget.waiting) == (80, 0)

    run(body())


def rss_mb(pid: int) -> float:
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("VmHWM:"):
            return int(text.split()[1]) / 1024
    raise AssertionError("no VmHWM")


@pytest.fixture
def broker(home: Path) -> Iterator[EmbeddedServer]:
    """A running broker; it ends with the test, also when it was stopped."""
    embedded = start_server()
    yield embedded
    embedded.kill()


def flood(number: int, events: int) -> None:
    """Send events of 2 kB as fast as the socket takes them; the last one asks for an answer."""
    connection = Connection(timeout=300)
    payload = {"text": "x" * 1900}
    for start in range(0, events, 500):
        ids = [f"{number}-{n}" for n in range(start, start + 500)]
        connection.send(*({"topic": "a.b", "id": id, "payload": payload} for id in ids))
    connection.send({"topic": "a.b", "id": f"{number}-end", "_reply": True})
    assert connection.answer()["ok"]
    connection.close()


@pytest.mark.slow
def test_a_stopped_broker_and_a_flood_cost_no_memory(home: Path, broker: EmbeddedServer) -> None:
    """100,000 events of 2 kB from four connections that never wait for an answer, while the broker
    is stopped: the agent's memory stays bounded, and all are stored afterwards."""
    total, senders = 100_000, 4
    with agent(home) as running:
        assert broker.process is not None
        freeze(broker.process)
        held: list[int] = []
        with ThreadPoolExecutor(senders) as pool:
            floods = [pool.submit(flood, n, total // senders) for n in range(senders)]
            while wait(floods, timeout=0.2).done != set(floods):
                facts = agent_says()
                assert facts["under_way_bytes"] <= facts["under_way_limit"]
                held.append(facts["paused"])
            for one in floods:
                one.result()
        broker.process.send_signal(signal.SIGCONT)
        assert max(held) > 0  # somebody was held up, and it could be seen
        assert rss_mb(running.process.pid) < MAX_RSS
        until(lambda: not agent_says()["behind"], timeout=120)
        assert agent_says()["since_start"]["stored"] >= total + senders
        assert rss_mb(running.process.pid) < MAX_RSS
