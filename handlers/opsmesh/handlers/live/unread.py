"""What the stream's limits removed before a profile had decided it: told once, when it goes on."""

from __future__ import annotations

from typing import Any

from nats.aio.client import Client

from opsmesh.handlers.live.position import Cursor
from opsmesh.router.stored import stored_us
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import gaps, ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event


def removed(cursor: Cursor, first_seq: int) -> int:
    """How many events the stream removed that the owner of this cursor has not seen; how many of
    them were for its profile, nobody can say any more. 0 for a cursor that was never noted."""
    return max(first_seq - cursor.seq - 1, 0) if cursor.at_us else 0


async def event(
    client: Client, cursor: Cursor, first_seq: int, *, consumer: str, host: str
) -> Event:
    """The event that tells of it; its id is derived from the position, so that it is told once."""
    id = ids.derived(cursor.at_us // 1000, "removed", consumer, str(cursor.seq))
    payload: dict[str, Any] = {
        "source": consumer,
        "kind": gaps.REMOVED,
        "last_known": cursor.seq,
        "first_known": first_seq,
        "from_time": times.format_us(cursor.at_us),
        "host": host,
    }
    first_us = await stored_us(client, EVENTS, first_seq)
    if first_us is not None:  # else removed as well, or the stream is empty
        payload["to_time"] = times.format_us(first_us)
    return Event(
        topic="mesh.gap.detected",
        ts_utc=times.format_us(times.now_us()),
        source="opsmesh",
        component="handlers",
        severity="warn",
        correlation_id=id,
        host=host,
        session_id="",
        workspace="",
        payload={**payload, "message": gaps.sentence(payload)},
        id=id,
        schema_version=SCHEMA_VERSION,
    )
