"""Events of before, for a step: a bounded reading of EVENTS, the newest first to be kept."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from nats.aio.client import Client

from opsmesh.handlers.actions.contract import Recent
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.topic_patterns import disjoint, listens
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError

#: Seconds that a reading may take.
TIMEOUT: Final = 8.0
#: An event may be stored so long after it happened and still be found: microseconds.
LATE_US: Final = 60_000_000
#: Messages that are looked at.
MOST: Final = 100_000


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
                if delivery(message.reply).timestamp_ns // 1000 > until_us + LATE_US:
                    break
                try:
                    event = decode(message.data)
                except SchemaError:
                    continue
                if not since_us <= event.ts_us <= until_us or not listens(topics, event.topic):
                    continue
                if host is not None and event.host != host:
                    continue
                if story is None or event.correlation_id == story:
                    kept.append(event)
        return sorted(kept, key=lambda event: event.ts_us)

    return recent
