"""Events of before, for a step: a bounded reading of EVENTS, the newest first to be kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from nats.aio.client import Client

from opsmesh.handlers.actions.contract import Past, Recent
from opsmesh.router.scan import scan
from opsmesh.router.topic_patterns import disjoint
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

    async def recent(past: Past) -> list[Event]:
        host = past.host
        place = "*" if host is None or any(c in host for c in ".*> ") else host
        subjects = [f"evt.{place}.{topic}" for topic in disjoint(past.topics)]
        kept: deque[Event] = deque(maxlen=past.limit)
        looked = 0
        async with asyncio.timeout(TIMEOUT):
            async for message in scan(client, EVENTS, subjects=subjects, since_us=past.since_us):
                looked += 1
                if looked > MOST:
                    break
                try:
                    event = decode(message.data)
                except SchemaError:
                    continue
                if past.fits(event):
                    kept.append(event)
        return sorted(kept, key=lambda event: event.ts_us)

    return recent


def of_events(events: Callable[[], Iterable[Event]]) -> Recent:
    """Reads among these events: of a mesh in memory."""

    async def recent(past: Past) -> list[Event]:
        found = [event for event in events() if past.fits(event)]
        return sorted(found, key=lambda event: event.ts_us)[-past.limit :]

    return recent
