"""Events of before, for a step: a bounded reading of EVENTS, the newest first to be kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from nats.aio.client import Client

from opsmesh.handlers.actions.contract import Recent
from opsmesh.router.scan import scan
from opsmesh.router.topic_patterns import disjoint, listens
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError

#: Seconds that a reading may take.
TIMEOUT: Final = 8.0
#: Messages that are looked at. An event may be stored long after it happened, out of a spool: where
#: it was stored says nothing about its end.
MOST: Final = 200_000


def reader(client: Client) -> Recent:
    """Reads over this connection."""

    async def recent(
        topics: Sequence[str],
        *,
        since_us: int,
        until_us: int,
        limit: int,
        host: str | None = None,
        story: str | None = None,
    ) -> list[Event]:
        place = "*" if host is None or any(c in host for c in ".*> ") else host
        subjects = [f"evt.{place}.{topic}" for topic in disjoint(topics)]
        kept: deque[Event] = deque(maxlen=limit)
        looked = 0
        async with asyncio.timeout(TIMEOUT):
            async for message in scan(client, EVENTS, subjects=subjects, since_us=since_us):
                looked += 1
                if looked > MOST:
                    break
                try:
                    event = decode(message.data)
                except SchemaError:
                    continue
                if since_us <= event.ts_us <= until_us and wanted(event, topics, host, story):
                    kept.append(event)
        return sorted(kept, key=lambda event: event.ts_us)

    return recent


def of_events(events: Callable[[], Iterable[Event]]) -> Recent:
    """Reads among these events: of a mesh in memory."""

    async def recent(
        topics: Sequence[str],
        *,
        since_us: int,
        until_us: int,
        limit: int,
        host: str | None = None,
        story: str | None = None,
    ) -> list[Event]:
        found = [
            event
            for event in events()
            if since_us <= event.ts_us <= until_us and wanted(event, topics, host, story)
        ]
        return sorted(found, key=lambda event: event.ts_us)[-limit:]

    return recent


def wanted(event: Event, topics: Sequence[str], host: str | None, story: str | None) -> bool:
    """Whether the event is of these topics, and of this host and story where they are given."""
    return (
        listens(topics, event.topic)
        and (host is None or event.host == host)
        and (story is None or event.correlation_id == story)
    )
