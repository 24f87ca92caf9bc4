"""What a bundle holds of the time before its event: in a mesh in memory, and of a real stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from tests.conftest import mesh_client, run

from opsmesh.handlers.actions.contract import Past
from opsmesh.handlers.live.recent import reader
from opsmesh.handlers.testing import Profiles
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.testing import MemoryMesh
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event, encode, subject

PROFILE = """
profiles:
  triage:
    on: service.start.failed
    actions:
      - id: evidence
        collect:
          items:
            - package_history
            - {name: changes, events: {topics: [config.>], since: 10m}}
            - {name: story, events: {of: story}}
"""

NOW_US = times.parse_us("2026-11-23T09:12:00Z")


def test_in_memory(tmp_path: Path) -> None:
    """A profile's test sees in its bundle what its mesh held before: of the time, topics, host."""
    (tmp_path / "profiles.yaml").write_text(PROFILE)
    mesh = MemoryMesh()
    profiles = Profiles.load(tmp_path / "profiles.yaml", mesh)
    package = {"name": "hello", "operation": "upgrade", "old_version": "1", "version": "2"}
    mesh.emit("config.apply.completed", {"tool": "too-old"})
    mesh.clock.advance(1200)
    mesh.emit("package.txn.completed", {"manager": "pacman", "packages": [package]})
    mesh.emit("config.apply.completed", {"tool": "recent"})
    mesh.clock.advance(60)
    mesh.emit("service.start.failed", {"unit": "backup.service", "result": "signal"})
    mesh.clock.advance(60)
    mesh.emit("config.apply.completed", {"tool": "later"})
    [fired] = profiles.fired()
    done = profiles.act(fired, bundles=tmp_path / "bundles")
    folder = Path(str(done.evidence_path))
    assert "upgrade hello 1 → 2" in (folder / "package_history.txt").read_text()
    changes = (folder / "changes").read_text()
    assert "recent" in changes
    assert "too-old" not in changes
    assert "later" not in changes
    assert (folder / "story").read_text() == "none\n"


async def store(client: Client, number: int, **more: Any) -> Event:
    facts: dict[str, Any] = {
        "topic": "config.apply.completed",
        "ts_utc": times.format_us(NOW_US + number * 1_000_000),
        "source": "test",
        "component": "test",
        "severity": "info",
        "correlation_id": "story",
        "host": "dev",
        "session_id": "",
        "workspace": "",
        "payload": {},
        "id": f"019ab000-0000-7000-8000-{number:012}",
        **more,
    }
    event = Event(**facts)
    await client.jetstream().publish(subject(event.host, event.topic), encode(event))
    return event


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"topics": [">"]}, [0, 1, 2, 3, 4]),
        ({"topics": ["config.>", "config.apply.*"]}, [0, 1, 4]),
        ({"topics": [">"], "limit": 2}, [3, 4]),
        ({"topics": [">"], "host": "dev"}, [0, 1, 3]),
        ({"topics": [">"], "story": "other"}, [3]),
        ({"topics": [">"], "until_us": NOW_US + 1_000_000}, [0, 1]),
        ({"topics": ["none.at.all"]}, []),
        ({"topics": [">"], "host": "*"}, []),
    ],
)
def test_of_the_stream(
    nats_server: EmbeddedServer, asked: dict[str, Any], found: list[int]
) -> None:
    """Events of before are chosen by topic, time of happening, host and story; the newest stay."""
    wanted = {"since_us": 0, "until_us": NOW_US + 10**9, "limit": 100, **asked}

    async def body() -> None:
        async with mesh_client() as client:
            await store(client, 0)
            await store(client, 1)
            await store(client, 2, topic="git.head.moved", host="other")
            await store(client, 3, topic="git.head.moved", correlation_id="other")
            await store(client, 4, host="other")
            events = await reader(client)(Past(**wanted))
            assert [int(event.id[-12:]) for event in events] == found

    run(body())


def test_stored_late(nats_server: EmbeddedServer) -> None:
    """An event that happened before, and was stored after what is asked about, is found."""

    async def body() -> None:
        async with mesh_client() as client:
            await store(client, 5)
            await store(client, 2)
            until_us = NOW_US + 3_000_000
            past = Past(topics=[">"], since_us=0, until_us=until_us, limit=10)
            found = await reader(client)(past)
            assert [event.ts_us for event in found] == [NOW_US + 2_000_000]

    run(body())
