"""Every stream and every consumer of a broker, however many: nats-server answers with at most 256
of them at a time (`JSApiNamesLimit` and `JSApiListLimit` in its source)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo

PAGE: Final = 256

T = TypeVar("T")


async def streams(js: JetStreamContext) -> list[StreamInfo]:
    """Every stream of the account."""
    return await _all(lambda offset: js.streams_info(offset=offset))


async def consumers(js: JetStreamContext, stream: str) -> dict[str, ConsumerInfo]:
    """Every consumer of a stream, by its name. NotFoundError where there is no such stream."""
    found = await _all(lambda offset: js.consumers_info(stream, offset=offset))
    return {info.name: info for info in found}


async def _all(page_from: Callable[[int], Awaitable[Sequence[T]]]) -> list[T]:
    found: list[T] = []
    while True:
        page = await page_from(len(found))
        found += page
        if len(page) < PAGE:
            return found
