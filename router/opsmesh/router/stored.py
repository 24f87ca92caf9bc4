"""When a message of a stream was stored, by its sequence, whoever it is for."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from nats.aio.client import Client

from opsmesh.router.errors import Unreadable
from opsmesh.schemas import times

#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0


async def stored_us(client: Client, stream: str, seq: int) -> int | None:
    """In microseconds since the epoch; None for a message that is not there."""
    asked = msgspec.json.encode({"seq": seq})
    try:
        answer = await client.request(f"$JS.API.STREAM.MSG.GET.{stream}", asked, timeout=TIMEOUT)
    except Unreadable as foreign:
        return times.parse_us(foreign.stored) if foreign.stored else None
    said = msgspec.json.decode(answer.data, type=dict[str, Any])
    return times.parse_us(said["message"]["time"]) if "message" in said else None
