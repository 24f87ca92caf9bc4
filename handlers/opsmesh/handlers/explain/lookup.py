"""Events by their id or sequence: in the stream, or else in the evidence archive.

An id may be given by its beginning. Payloads come back in today's form, as the deciders see them.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.evidence import reader
from opsmesh.handlers.evidence.reader import Archived
from opsmesh.router import sourced
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.sourced import Origin
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.registry import Registry

#: An event may carry an earlier time than its id: a search begins this long before, in
#: microseconds.
SLACK_US: Final = 60_000_000
#: Events that are fetched from the broker at once.
AT_ONCE: Final = 64
#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0

_BEGINNING = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{0,4})?")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An event, and where it lies; `archived`: the stream has it no more. `origin` is where it was
    stored first, when a hub has it from a leaf."""

    event: Event
    seq: int
    stored_us: int
    archived: bool = False
    origin: Origin | None = None

    def seq_at(self, leaf: str) -> int | None:
        """Its sequence at this leaf (here, for none); None when it was never there."""
        if not leaf:
            return self.seq
        return self.origin.seq if self.origin is not None and self.origin.leaf == leaf else None

    @property
    def began_us(self) -> int:
        """Before that nothing is on record of it, by the clock of this broker. The hub may have
        what a leaf recorded of an event before the event."""
        if self.origin is None:
            return self.stored_us
        return min(self.stored_us, self.event.ts_us - SLACK_US)


def begins_us(event_id: str) -> int | None:
    """The store time, in microseconds, before which no event of this id, or of this beginning of
    one, was stored; None when the text does not say."""
    ms = ids.unix_ms(event_id)
    if ms is None and _BEGINNING.match(event_id):
        head = event_id.replace("-", "")[:12]
        try:
            ms = int(head.ljust(12, "0"), 16)
        except ValueError:
            return None
    return None if ms is None else max(0, ms * 1000 - SLACK_US)


class Lookup:
    """Finds events for one command."""

    def __init__(self, client: Client, registry: Registry, archive: Path) -> None:
        self._client = client
        self._registry = registry
        self._archive = archive
        self._known: dict[int, Place | None] = {}

    async def find(self, event_id: str) -> list[Place]:
        """The events whose ids begin so, one for each id, from the stream or else the archive."""
        since_us = begins_us(event_id)
        found = await self._stored(event_id, since_us)
        if not found:
            found = await asyncio.to_thread(self._archived, event_id, since_us)
        if not found and since_us is not None and ids.unix_ms(event_id) is None:
            # what looked like the beginning of one of our ids is a foreign one
            found = await self._stored(event_id, None)
            found = found or await asyncio.to_thread(self._archived, event_id, None)
        return list(found.values())

    async def _stored(self, event_id: str, since_us: int | None) -> dict[str, Place]:
        whole = ids.unix_ms(event_id) is not None
        found: dict[str, Place] = {}
        wanted = _as_json(event_id)
        async for msg in scan(self._client, EVENTS, since_us=since_us):
            where = delivery(msg.reply)
            seq, stored_us = where.stream_seq, where.timestamp_ns // 1000
            if wanted not in msg.data and not _bare(seq, stored_us).startswith(event_id):
                continue
            place = self._place(msg.data, seq, stored_us, headers=msg.headers)
            if place is not None and place.event.id.startswith(event_id):
                found.setdefault(place.event.id, place)
                if whole:
                    break
        return found

    async def story(self, correlation: str) -> list[Place]:
        """The events of one correlation in their order, from the stream or else the archive."""
        ms = ids.unix_ms(correlation)
        since_us = None if ms is None else ms * 1000 - SLACK_US
        text = _as_json(correlation)
        found = []
        async for msg in scan(self._client, EVENTS, since_us=since_us):
            if text not in msg.data:
                continue
            where = delivery(msg.reply)
            stored_us = where.timestamp_ns // 1000
            place = self._place(msg.data, where.stream_seq, stored_us, headers=msg.headers)
            if place is not None and place.event.correlation_id == correlation:
                found.append(place)
        if found:
            return found
        archived = await asyncio.to_thread(
            lambda: list(self._lines(since_us, lambda one: text in one.data))
        )
        return [place for place in archived if place.event.correlation_id == correlation]

    async def at(self, seqs: Collection[int]) -> dict[int, Place]:
        """The events at these sequences, as far as anybody has them."""
        wanted = sorted({seq for seq in seqs if seq not in self._known})
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            places = await asyncio.gather(*(self._read(seq) for seq in part))
            self._known.update(zip(part, places, strict=True))
        missing = {seq for seq in wanted if self._known[seq] is None}
        if missing:
            found = await asyncio.to_thread(self._from_archive, missing)
            self._known.update(found)
        places_of = ((seq, self._known.get(seq)) for seq in seqs)
        return {seq: place for seq, place in places_of if place is not None}

    def forget(self) -> None:
        """Keep nothing of what `at` has fetched."""
        self._known.clear()

    async def between(
        self, subjects: list[str], since_us: int, until_us: int | None, *, most: int | None = None
    ) -> list[Place]:
        """Events on these subjects that were stored from then on, and before `until_us`; no more
        than the last `most`."""
        found: deque[Place] = deque(maxlen=most)
        async for place in self._from(subjects, since_us):
            if until_us is not None and place.stored_us >= until_us:
                break
            found.append(place)
        return list(found)

    async def next(self, subjects: list[str], since_us: int) -> Place | None:
        """The first event on these subjects that was stored from then on."""
        async for place in self._from(subjects, since_us):
            return place
        return None

    async def _from(self, subjects: list[str], since_us: int) -> AsyncIterator[Place]:
        if not subjects:
            return
        async for msg in scan(self._client, EVENTS, subjects=subjects, since_us=max(0, since_us)):
            where = delivery(msg.reply)
            stored_us = where.timestamp_ns // 1000
            place = self._place(msg.data, where.stream_seq, stored_us, headers=msg.headers)
            if place is not None:
                yield place

    async def _read(self, seq: int) -> Place | None:
        js = self._client.jetstream(timeout=TIMEOUT)
        try:
            msg = await js.get_msg(EVENTS, seq, direct=True)
        except NotFoundError:
            return None
        stored_us = round(msg.time.timestamp() * 1e6) if msg.time else 0
        return self._place(msg.data or b"", seq, stored_us, headers=msg.headers)

    def _place(
        self,
        data: bytes,
        seq: int,
        stored_us: int,
        *,
        archived: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Place | None:
        try:
            event = self._registry.upcast(decode(data, stored=(EVENTS, seq, stored_us)))
        except SchemaError:
            return None
        return Place(
            event=event,
            seq=seq,
            stored_us=stored_us,
            archived=archived,
            origin=sourced.origin(headers),
        )

    def _from_archive(self, seqs: set[int]) -> dict[int, Place | None]:
        found: dict[int, Place | None] = {}
        for place in self._lines(None, lambda one: one.seq in seqs):
            found[place.seq] = place
            if len(found) == len(seqs):
                break
        return found

    def _archived(self, event_id: str, since_us: int | None) -> dict[str, Place]:
        found: dict[str, Place] = {}
        wanted = _as_json(event_id)

        def maybe(one: Archived) -> bool:
            return wanted in one.data or _bare(one.seq, one.time_us).startswith(event_id)

        for place in self._lines(since_us, maybe):
            if place.event.id.startswith(event_id):
                found.setdefault(place.event.id, place)
        return found

    def _lines(self, since_us: int | None, wanted: Callable[[Archived], bool]) -> Iterator[Place]:
        for one in reader.read(self._archive, since_us=since_us):
            if one.stream == EVENTS and wanted(one):
                place = self._place(one.data, one.seq, one.time_us, archived=True)
                if place is not None:
                    yield place


def _as_json(text: str) -> bytes:
    return msgspec.json.encode(text)[1:-1]


def _bare(seq: int, stored_us: int) -> str:
    """The id of an event that was stored there without one (`envelope.decode`)."""
    return ids.derived(stored_us // 1000, EVENTS, str(seq))
