"""Where an event lies in the archive, by its id."""

from __future__ import annotations

from pathlib import Path

import msgspec

from opsmesh.handlers.evidence import reader, segments
from opsmesh.handlers.evidence.reader import Archived
from opsmesh.handlers.evidence.segments import Segment
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode
from opsmesh.schemas.errors import SchemaError


class Place(msgspec.Struct, frozen=True):
    """A line of the archive: its number from 1, its bytes, and the message in it."""

    segment: Segment
    line: int
    raw: bytes
    item: Archived


def locate(folder: Path, event_id: str) -> Place | None:
    """The line of the event; the newest files are looked at first."""
    for segment in reversed(segments.listing(folder)):
        with segments.opened(segment) as file:
            for number, raw in enumerate(file, 1):
                item = is_it(raw, event_id)
                if item is not None:
                    return Place(segment, number, raw, item)
    return None


def is_it(raw: bytes, event_id: str) -> Archived | None:
    """The message in the line if its event has this id.

    An event stored without one has the id that every reader derives, which holds the millisecond
    of its store time.
    """
    ms = ids.unix_ms(event_id)
    stored = times.format_us(ms * 1000)[:23].encode() if ms is not None else event_id.encode()
    if event_id.encode() not in raw and stored not in raw:
        return None
    item = reader.entry(raw)
    event = event_of(item) if item is not None else None
    return item if event is not None and event.id == event_id else None


def event_of(item: Archived) -> Event | None:
    """The event in a message; None when it is none."""
    try:
        return decode(item.data, stored=(item.stream, item.seq, item.time_us))
    except SchemaError:
        return None
