"""A handlers server of a test's own: real broker, real profiles files, real commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from tests.conftest import eventually, mesh_client

from opsmesh.handlers.live.consumers import consumer_name
from opsmesh.handlers.live.position import Positions
from opsmesh.handlers.live.records import Record, records
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.handlers.server import Server
from opsmesh.router import deadletter, files, paths
from opsmesh.router.deadletter import Letter
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode, encode, subject


@dataclass
class Mesh:
    """What a test does with it."""

    client: Client
    server: Server
    settings: Settings

    async def publish(self, topic: str = "service.start.failed", **more: Any) -> Event:
        """One event, stored as its producer would."""
        now_us = times.now_us()
        event_id = ids.uuid7()
        facts: dict[str, Any] = {
            "source": "test",
            "component": "test",
            "severity": "error",
            "correlation_id": event_id,
            "host": self.settings.host,
            "session_id": "",
            "workspace": "work",
            "payload": {"unit": "backup.service"},
        }
        event = Event(topic=topic, ts_utc=times.format_us(now_us), id=event_id, **{**facts, **more})
        await self.client.jetstream().publish(
            subject(event.host, topic), encode(event), headers={"Nats-Msg-Id": event.id}
        )
        return event

    async def events(self, topic: str = ">") -> list[Event]:
        """Every stored event of the topic."""
        return [
            decode(msg.data) async for msg in scan(self.client, EVENTS, subjects=[f"evt.*.{topic}"])
        ]

    async def runs(self) -> list[Run]:
        """Every run in the ledger."""
        return [run async for run in Ledger(self.client).runs()]

    async def letters(self) -> list[Letter]:
        """Every dead letter."""
        return [letter async for letter in deadletter.letters(self.client)]

    async def decided(self, profile: str, seq: int) -> None:
        """Return once the profile has decided every event up to `seq`, and noted it."""
        consumer = consumer_name(self.server.in_force(profile), self.settings.host)

        async def there() -> bool:
            cursor, _ = await Positions(self.client).cursor(consumer)
            return cursor is not None and cursor.seq >= seq

        await eventually(there)

    async def records(self, profile: str | None = None) -> list[Record]:
        """Recorded decisions: the quiet ones, then the firings."""
        return [record async for record in records(self.client, profile=profile)]

    async def wait(self, topic: str, count: int = 1) -> list[Event]:
        """The events of a topic, once there are `count` of them."""

        async def there() -> list[Event]:
            found = await self.events(topic)
            return found if len(found) >= count else []

        found: list[Event] = await eventually(there)
        return found


def write_profiles(text: str) -> Path:
    """The profiles file of this test's mesh; a new one in place of one that is there, so that
    nobody reads it half written."""
    path = Path(paths.config_dir(), "profiles.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_private(path, text.encode())
    return path


@asynccontextmanager
async def mesh(profiles: str, *, settings: Settings | None = None) -> AsyncIterator[Mesh]:
    """Handlers that run with these profiles."""
    write_profiles(profiles)
    settings = settings or Settings()
    async with mesh_client(settings) as client:
        server = Server(client, settings)
        await server.start()
        await server.owned()
        try:
            yield Mesh(client, server, settings)
        finally:
            await server.stop()
