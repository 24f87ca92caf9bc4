"""Reading the archive: stored messages in order, without opening what cannot be asked for.

The reader believes what it reads; whether it is true is `verify`'s business. Lines that are none
are passed over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import msgspec
import watchfiles

from opsmesh.handlers.evidence import lines, segments
from opsmesh.router.topic_patterns import topic_matches
from opsmesh.schemas import times

#: Milliseconds after which `follow` looks even without a change: what was written before the watch
#: began, and on network disks, is not reported.
LOOK_MS = 5000


class Archived(msgspec.Struct, frozen=True):
    """One stored message; `time_us` is when the broker stored it."""

    stream: str
    seq: int
    time_us: int
    data: bytes


class _Topic(msgspec.Struct):
    topic: str = ""


_topic = msgspec.json.Decoder(_Topic).decode


def read(
    folder: Path,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    topics: Iterable[str] | None = None,
) -> Iterator[Archived]:
    """Messages stored at or after `since_us` and before `until_us`, in the archive's order.

    `topics` may hold NATS wildcards; a message that is no event has no topic.
    """
    since = times.format_us(since_us) if since_us is not None else ""
    until = times.format_us(until_us) if until_us is not None else "~"
    patterns = None if topics is None else list(topics)
    for segment in segments.listing(folder):
        if not since[:10] <= segment.day <= until[:10]:
            continue
        with segments.opened(segment) as file:
            for raw in file:
                found = entry(raw, patterns, since=since, until=until)
                if found is not None:
                    yield found


def newest(
    folder: Path,
    count: int,
    *,
    topics: Sequence[str] | None = None,
    sizes: Mapping[int, int] | None = None,
) -> list[Archived]:
    """The last `count` messages, oldest first; reads no more segments than it needs.

    `sizes` limits it to the first bytes of each segment, by number.
    """
    found: list[Archived] = []
    for segment in reversed(segments.listing(folder)):
        if len(found) >= count:
            break
        with segments.opened(segment) as file:
            raws = file.read(-1 if sizes is None else sizes.get(segment.number, 0)).splitlines(
                keepends=True
            )
        here: list[Archived] = []
        for raw in reversed(raws):
            if len(found) + len(here) >= count:
                break
            one = entry(raw, topics)
            if one is not None:
                here.append(one)
        found = [*reversed(here), *found]
    return found


def follow(
    folder: Path,
    count: int,
    *,
    topics: Sequence[str] | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Archived]:
    """The last `count` messages, then every new one as it is archived, until `stop` is set."""
    # Sizes first: what is written from now on is read as new, and never twice.
    place = {segment.number: segments.size(segment) for segment in segments.listing(folder)}
    yield from newest(folder, count, topics=topics, sizes=place)
    number = max(place, default=0)
    offset = place.get(number, 0)
    changes = watchfiles.watch(folder, stop_event=stop, yield_on_timeout=True, rust_timeout=LOOK_MS)
    for _ in chain([()], changes):
        for segment in segments.listing(folder):
            if segment.number < number:
                continue
            if segment.number > number:
                number, offset = segment.number, 0
            with segments.opened(segment, offset) as file:
                for raw in file:
                    if not raw.endswith(b"\n"):  # a write goes on: its rest comes next time
                        break
                    offset += len(raw)
                    found = entry(raw, topics)
                    if found is not None:
                        yield found


def entry(
    raw: bytes, topics: Sequence[str] | None = None, *, since: str = "", until: str = "~"
) -> Archived | None:
    """The message in one line; None for a note, a line that is none, or one not asked for.

    `since` and `until` are times as the archive writes them, which sort as text.
    """
    line = lines.parse(raw)
    if line is None or line.kind == "note" or not since <= line.time < until:
        return None
    if topics is not None and not _matches(line, topics):
        return None
    try:
        return Archived(line.stream, line.seq, times.parse_us(line.time), line.data)
    except ValueError:
        return None


def _matches(line: lines.Line, topics: Sequence[str]) -> bool:
    try:
        topic = _topic(line.data).topic
    except (ValueError, msgspec.DecodeError, RecursionError):
        return False
    return any(topic_matches(pattern, topic) for pattern in topics)
