"""What Prometheus is answered, by a real broker, real handlers and its own parser."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic
from tests.conftest import eventually, run
from tests.handlers.mesh import mesh

from opsmesh.handlers import figures
from opsmesh.handlers.errors import MetricsNotServed
from opsmesh.handlers.metrics.serve import Endpoint
from opsmesh.router import tasks
from opsmesh.router.metrics import telling
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

PROFILES = """
profiles:
  counted:
    on: service.start.failed
    actions: [command: ["true"]]
  hopeless:
    on: service.start.failed
    retry: {attempts: 2, initial: 1ms, jitter: 0}
    actions: [command: ["false"]]
"""
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@asynccontextmanager
async def endpoint(settings: Settings) -> AsyncIterator[str]:
    """The endpoint's address while the body runs."""
    one = Endpoint(settings, address="127.0.0.1", port=0)
    ready = asyncio.Event()
    serving = asyncio.create_task(one.run(lambda _: ready.set()))
    try:
        await ready.wait()
        yield one.address
    finally:
        await tasks.end([serving])


async def get(url: str, *, accept: str = "") -> str:
    """What a scrape is answered."""

    wanted = urllib.request.Request(url, headers={"Accept": accept})

    def ask() -> str:
        with urllib.request.urlopen(wanted, timeout=60) as got:
            return str(got.read().decode())

    return await asyncio.to_thread(ask)


async def values(url: str) -> dict[tuple[str, str], float]:
    """Each sample's value by its name and profile (or stream); "" where it has none."""
    found: dict[tuple[str, str], float] = {}
    for family in classic(await get(f"{url}/metrics")):
        for sample in family.samples:
            about = sample.labels.get("profile") or sample.labels.get("stream") or ""
            key = (sample.name, about + sample.labels.get("state", ""))
            found[key] = found.get(key, 0.0) + sample.value
    return found


def test_a_run_is_counted_all_the_way(nats_server: EmbeddedServer) -> None:
    """One event that two profiles act on is told as two decisions, two runs with how they ended,
    the attempt that was made again, the dead letter, and the times of all of it; and the broker's
    streams and the profiles' lags stand beside them."""

    async def body() -> None:
        async with (
            mesh(PROFILES) as one,
            telling.told("handlers", figures.HANDLERS),
            endpoint(one.settings) as url,
        ):
            await eventually(lambda: _up(url))
            before = await values(url)
            await one.publish()
            await one.wait("automation.run.succeeded")
            await one.wait("automation.run.deadlettered")
            after = await values(url)
            more = {key: value - before.get(key, 0) for key, value in after.items()}
            assert more["opsmesh_runs_total", "countedsucceeded"] == 1
            assert more["opsmesh_runs_total", "hopelessdeadlettered"] == 1
            assert more["opsmesh_run_retries_total", "hopeless"] == 1
            assert more["opsmesh_dead_letters_total", "hopeless"] == 1
            assert more["opsmesh_decisions_total", "counted"] == 1
            assert more["opsmesh_trigger_to_action_seconds_count", "counted"] == 1
            assert more["opsmesh_run_duration_seconds_count", "hopeless"] == 2
            assert more["opsmesh_step_duration_seconds_count", ""] == 3
            assert after["opsmesh_profile_owned", "counted"] == 1
            assert after["opsmesh_stream_messages", "DLQ"] == 1
            assert after["opsmesh_profile_lag_events", "counted"] >= 0
            told = await get(f"{url}/metrics", accept=OPENMETRICS)
            assert list(openmetrics(told))  # type: ignore[no-untyped-call]

    run(body())


async def _up(url: str) -> bool:
    return (await values(url))["opsmesh_broker_up", ""] == 1


def test_a_broker_that_goes_and_comes(nats_server: EmbeddedServer) -> None:
    """While the broker is gone the endpoint answers and says so, and it finds the next one."""

    async def body() -> None:
        async with endpoint(Settings()) as url:
            await eventually(lambda: _up(url))
            await asyncio.to_thread(nats_server.kill)

            async def away() -> bool:
                return not await _up(url)

            await eventually(away)
            await asyncio.to_thread(nats_server.start)
            await eventually(lambda: _up(url))

    run(body())


def test_what_has_not_happened_is_told_as_0(nats_server: EmbeddedServer) -> None:
    """A profile that is owned has its counters from then on, so that its first dead letter is an
    increase."""

    async def body() -> None:
        async with mesh(PROFILES.replace("hopeless", "untried")):
            found = {one.labels: one.value for one in figures.DEAD_LETTERS.figure().series}
            assert found["untried",] == 0

    run(body())


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example:{port}", 421), ("localhost:{port}", 200), ("127.0.0.1", 200), ("[::1]:1", 200)],
)
def test_a_page_under_another_name_is_refused(home: Path, host: str, status: int) -> None:
    """On loopback a request by a name that is not this machine's is a browser that was misled."""

    async def body() -> None:
        async with endpoint(Settings()) as url, httpx.AsyncClient(timeout=60) as client:
            said = {"host": host.format(port=url.rpartition(":")[2])}
            assert (await client.get(f"{url}/metrics", headers=said)).status_code == status

    run(body())


def test_the_endpoint_without_a_mesh(home: Path) -> None:
    """With no mesh the endpoint answers, says that nothing is there, and that it is well itself."""

    async def body() -> None:
        async with endpoint(Settings()) as url:
            assert "opsmesh_broker_up 0.0" in await get(f"{url}/metrics")
            assert await get(f"{url}/healthz") == "ok\n"
            with pytest.raises(urllib.error.HTTPError, match="404"):
                await get(f"{url}/secrets")

    run(body())


def test_a_port_that_is_taken(home: Path) -> None:
    """A port that somebody has is named, with the command that says who."""

    async def body() -> None:
        async with endpoint(Settings()) as url:
            port = int(url.rpartition(":")[2])
            with pytest.raises(MetricsNotServed, match=str(port)) as told:
                Endpoint(Settings(), address="127.0.0.1", port=port)
            assert f":{port}" in told.value.hint

    run(body())
