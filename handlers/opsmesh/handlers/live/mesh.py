"""What steps reach of the live mesh: other profiles, and the events that come by.

Following is a reader of its own, without a place in the broker: whoever follows keeps the position.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.errors import NoRespondersError

from opsmesh.handlers.actions.contract import Followed
from opsmesh.handlers.errors import NotRunnable
from opsmesh.router import trigger
from opsmesh.router.connection import AWAY
from opsmesh.router.errands import PATIENCE, RUNNABLE
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.topic_patterns import disjoint, listens
from opsmesh.router.topology import EVENTS
from opsmesh.router.trigger import Trigger
from opsmesh.schemas.envelope import Event, decode, encode
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.registry import Registry

#: Seconds before a reader that the broker has lost is made anew.
AGAIN_S: Final = 1.0


class LiveMesh:
    """Over the connection of a handlers process."""

    def __init__(self, client: Client, registry: Registry, *, strict: bool = False) -> None:
        self._client = client
        self._registry = registry
        self._strict = strict

    def check(self, event: Event) -> None:
        known = self._registry.check(event.topic, event.payload)
        if known is None and self._strict:
            raise SchemaError(f"topic {event.topic} is not registered, and strict_topics is set")

    async def trigger(self, profile: str, event: Event, *, id: str) -> None:
        if error := await self._hindrance(profile, event.host):
            raise NotRunnable(profile, error)
        await trigger.send(self._client, profile, encode(event), Trigger(kind="step", id=id))

    async def follow(
        self, topics: Sequence[str], *, since_us: int | None = None, after_seq: int | None = None
    ) -> AsyncIterator[Followed]:
        subjects = [f"evt.*.{topic}" for topic in disjoint(topics)]
        while True:
            start = None if after_seq is None else after_seq + 1
            reading = scan(
                self._client,
                EVENTS,
                subjects=subjects,
                since_us=since_us,
                start_seq=start,
                follow=True,
            )
            try:
                async with contextlib.aclosing(reading):  # type: ignore[type-var]
                    async for message in reading:
                        where = delivery(message.reply)
                        after_seq = where.stream_seq
                        stored_us = where.timestamp_ns // 1000
                        found = self._read(message.data, after_seq, stored_us)
                        if found is not None and listens(topics, found.event.topic):
                            yield found
            except (BrokerUnavailable, *AWAY):
                await asyncio.sleep(AGAIN_S)

    async def newest(self) -> int:
        info = await self._client.jetstream().stream_info(EVENTS)
        return info.state.last_seq

    async def _hindrance(self, profile: str, host: str) -> str:
        """Why it cannot be run; "" when it can, or when nobody knows."""
        asked = msgspec.json.encode({"profile": profile, "host": host})
        try:
            answer = await self._client.request(RUNNABLE, asked, timeout=PATIENCE)
            said = msgspec.json.decode(answer.data, type=dict[str, object])
        except (NoRespondersError, TimeoutError, msgspec.DecodeError):
            return ""
        return "" if said.get("ok") else str(said.get("error", "it is refused"))

    def _read(self, data: bytes, seq: int, stored_us: int) -> Followed | None:
        try:
            event = self._registry.upcast(decode(data, stored=(EVENTS, seq, stored_us)))
        except SchemaError:
            return None
        return Followed(seq=seq, stored_us=stored_us, event=event)
