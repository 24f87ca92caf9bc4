"""The sink with a real broker: what is missing is told as an event, once, and corrected."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from opsmesh.handlers.evidence.verify import verify
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.settings import Events, Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode, encode
from tests.conftest import WHOLE, eventually, mesh_client, run
from tests.evidence.sinks import archived, ended, folder, publish, sink, stored
from tests.router.agent_process import agent

#: So that a test need not wait a minute.
ENV = {"OPSMESH_EVIDENCE__GAP_GRACE": "400ms"}

pytestmark = pytest.mark.usefixtures("nats_server")


def numbered(seq: int, boot: str, *, source: str = "pytest") -> bytes:
    id = ids.uuid7()
    return encode(
        Event(
            topic="a.b",
            ts_utc=times.format_us(times.now_us()),
            source=source,
            component="c",
            severity="info",
            correlation_id=id,
            host="h",
            session_id="",
            workspace="",
            payload={},
            id=id,
            seq=seq,
            boot_id=boot,
        )
    )


async def told(client: Client, topic: str = "mesh.gap.detected") -> list[Event]:
    """Every stored event that tells of a gap."""
    subjects = [f"evt.*.{topic}"]
    return [decode(msg.data) async for msg in scan(client, EVENTS, subjects=subjects)]


async def telling(client: Client, count: int, topic: str = "mesh.gap.detected") -> list[Event]:
    """The same, once there are as many."""

    async def there() -> list[Event]:
        found = await told(client, topic)
        return found if len(found) >= count else []

    found: list[Event] = await eventually(there)
    return found


def facts(event: Event, *names: str) -> tuple[Any, ...]:
    return tuple(event.payload.get(name) for name in names)


def test_lost_events_are_told_once() -> None:
    """Twelve events vanish from the stream before anybody reads them: one event says how many, of
    whom, and between which times; a sink that is killed and started again does not repeat it."""
    boot = ids.uuid7()

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            with sink(**ENV) as process:
                await publish(client, numbered(1, boot), numbered(2, boot))
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)
            await publish(client, *(numbered(seq, boot) for seq in range(3, 16)))
            await eventually(lambda: stored(client, 15))
            for seq in range(3, 15):
                await js.delete_msg(EVENTS, seq)
            with sink(**ENV) as process:
                found = await telling(client, 2)
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGKILL)
            with sink(**ENV) as process:
                await publish(client, numbered(16, boot))
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)
            assert await told(client) == found
            removed, lost = sorted(found, key=lambda event: event.payload["kind"])
            assert facts(removed, "source", "kind", "lost", "last_known", "first_known") == (
                "evidence-sink",
                "removed",
                12,
                2,
                15,
            )
            assert facts(lost, "source", "kind", "lost", "host", "boot_id") == (
                "pytest",
                "sequence",
                12,
                "h",
                boot,
            )
            assert lost.payload["message"].startswith("pytest lost 12 events ")
            assert lost.payload["from_time"] < lost.payload["to_time"]

    run(body())
    assert verify(folder()).intact


async def numbers(client: Client) -> dict[int | None, int]:
    """The place in the stream of each of three numbers of pytest's, once all are there."""
    found = {
        decode(msg.data).seq: delivery(msg.reply).stream_seq
        async for msg in scan(client, EVENTS, subjects=["evt.*.python.>"])
    }
    return found if sorted(found, key=str) == [1, 2, 3] else {}


def test_loss_of_a_real_pytest_is_told(tmp_path: Path) -> None:
    """pytest numbers what it tells; a failure that vanishes from the stream is missed by name."""
    tests = tmp_path / "test_three.py"
    tests.write_text("".join(f"def test_{n}(): assert not {n + 1}\n" for n in range(3)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_opsmesh", str(tests)]
    # without what makes it a pytest within a test, which tells nothing
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

    async def body() -> None:
        async with mesh_client() as client:
            with agent(tmp_path):
                await asyncio.to_thread(
                    subprocess.run, command, env=env, cwd=tmp_path, check=False, timeout=WHOLE
                )
                # a busy agent has some of them by way of the spool
                await eventually(lambda: numbers(client))
            seqs = await numbers(client)
            await client.jetstream().delete_msg(EVENTS, seqs[2])
            with sink(**ENV):
                found = await telling(client, 2)
            [lost] = [event for event in found if event.payload["kind"] == "sequence"]
            assert facts(lost, "source", "lost") == ("pytest", 1)
            assert lost.payload["message"].startswith("pytest lost 1 event ")

    run(body())


def test_gap_is_found_by_the_sink_that_comes_next() -> None:
    """A sink that is killed before the time is up forgets no hole."""
    boot = ids.uuid7()

    async def body() -> None:
        async with mesh_client() as client:
            with sink(OPSMESH_EVIDENCE__GAP_GRACE="1h") as process:
                await publish(client, numbered(1, boot), numbered(5, boot))
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGKILL)
            assert await told(client) == []
            with sink(**ENV):
                await publish(client, numbered(6, boot))
                [found] = await telling(client, 1)
                assert facts(found, "lost", "last_known", "first_known") == (3, 1, 5)

    run(body())


def test_event_that_comes_late_corrects_the_gap() -> None:
    """The spool brings what was called lost: an event names the gap, and what is left of it."""
    boot = ids.uuid7()

    async def body() -> None:
        async with mesh_client() as client:
            with sink(**ENV):
                await publish(client, numbered(1, boot), numbered(4, boot))
                [gap] = await telling(client, 1)
                await publish(client, numbered(2, boot), numbered(3, boot))

                async def whole() -> list[Event]:
                    """A sink that is held up between the two tells of the first alone before."""
                    every = await told(client, "mesh.gap.filled")
                    return [one for one in every if one.payload["lost"] == 0]

                [filled] = await eventually(whole)
                assert facts(filled, "gap", "found") == (gap.id, 2)
                assert filled.severity == "info"

    run(body())


def test_events_out_of_order_are_no_gap() -> None:
    """Ten events that arrive backwards tell nothing, and the one that is missing is told alone."""
    boot, other = ids.uuid7(), ids.uuid7()

    async def body() -> None:
        async with mesh_client() as client:
            # all of it is there before the sink is: it does not wait for the next one of a hole
            await publish(client, *(numbered(seq, boot) for seq in range(10, 0, -1)))
            await publish(client, *(numbered(seq, other, source="b") for seq in (1, 3)))
            with sink(**ENV):
                [found] = await telling(client, 1)
                assert facts(found, "source", "lost") == ("b", 1)

    run(body())


def test_retention_that_outruns_the_sink_is_told() -> None:
    """A stream that may hold five events removes forty while no sink runs: one event says so."""
    settings = Settings(events=Events(max_bytes=4096))

    async def body() -> None:
        async with mesh_client(settings) as client:
            with sink(**ENV) as process:
                await publish(client, b'{"topic":"a.b"}')
                await eventually(lambda: archived(client))
                await ended(process, signal.SIGTERM)
            await publish(client, *(b'{"topic":"a.b","x":"%s"}' % (b"y" * 500) for _ in range(40)))
            first = (await client.jetstream().stream_info(EVENTS)).state.first_seq
            assert first > 30
            with sink(**ENV):
                [found] = await telling(client, 1)
            assert facts(found, "source", "kind", "lost") == ("evidence-sink", "removed", first - 2)
            assert found.payload["from_time"] < found.payload["to_time"]

    run(body())
