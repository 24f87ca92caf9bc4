"""Archived events for other programs: as they are stored, as CloudEvents, as a Parquet file.

Everything streams: memory does not grow with the archive. Messages that are no events are left out,
and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from opsmesh.handlers.evidence import query, readonly, tables
from opsmesh.handlers.evidence.reader import read
from opsmesh.router.topic_patterns import expression
from opsmesh.schemas.cloudevents import to_cloudevent
from opsmesh.schemas.envelope import REQUIRED, Event, decode, raw_fields
from opsmesh.schemas.errors import SchemaError
from opsmesh.schemas.registry import Registry

#: Rows of one group of a Parquet file: what a reader has to take in at once.
ROW_GROUP: Final = 122_880


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: stored at or after `since_us` and before `until_us`, of one of these topics
    (NATS wildcards), of this host, of this story."""

    since_us: int | None = None
    until_us: int | None = None
    topics: tuple[str, ...] = ()
    host: str | None = None
    correlation: str | None = None


class Counts(msgspec.Struct):
    """What an export came to; `left_out` are messages that are no events."""

    events: int = 0
    left_out: int = 0


def as_stored(folder: Path, wanted: Wanted, counts: Counts) -> Iterator[bytes]:
    """The envelopes, one line each, in the bytes that were stored."""
    for _, data in _events(folder, wanted, counts):
        yield data + b"\n"


def as_cloudevents(
    folder: Path, wanted: Wanted, counts: Counts, registry: Registry
) -> Iterator[bytes]:
    """CloudEvents in the JSON format, one line each."""
    encode = msgspec.json.Encoder().encode
    for event, data in _events(folder, wanted, counts):
        payload = raw_fields(data)["payload"]
        yield encode(to_cloudevent(event, payload, known=registry.is_registered)) + b"\n"


def to_parquet(
    folder: Path, wanted: Wanted, path: Path, *, progress: readonly.Progress | None = None
) -> Counts:
    """Write the table `events` to `path`, compressed; ExtraMissing without DuckDB."""
    chosen = tables.files(folder, since_us=wanted.since_us, until_us=wanted.until_us)
    with tables.connect(
        folder,
        chosen,
        since_us=wanted.since_us,
        until_us=wanted.until_us,
        progress=progress,
        output=path,
    ) as connection:
        question = f"SELECT * FROM events WHERE {_where(wanted)}"  # noqa: S608 - literals of ours
        options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP}"
        with query.explained():
            written = connection.execute(
                f"COPY ({question}) TO {tables.text(str(path))} ({options}, USE_TMP_FILE false)"
            ).fetchone()
        return Counts(events=int(written[0]) if written else 0)


def _events(folder: Path, wanted: Wanted, counts: Counts) -> Iterator[tuple[Event, bytes]]:
    for item in read(
        folder,
        since_us=wanted.since_us,
        until_us=wanted.until_us,
        topics=wanted.topics or None,
    ):
        try:
            event = decode(item.data, stored=(item.stream, item.seq, item.time_us))
        except SchemaError:
            counts.left_out += 1
            continue
        if wanted.host not in (None, event.host):
            continue
        if wanted.correlation not in (None, event.correlation_id):
            continue
        counts.events += 1
        yield event, item.data


def _where(wanted: Wanted) -> str:
    """The same choice in SQL: what lacks a field of the envelope is no event."""
    parts = [f'"{name}" IS NOT NULL' for name in REQUIRED]
    if wanted.topics:
        pattern = "|".join(expression(topic) for topic in wanted.topics)
        parts.append(f"regexp_full_match(topic, {tables.text(pattern)})")
    if wanted.host is not None:
        parts.append(f"host = {tables.text(wanted.host)}")
    if wanted.correlation is not None:
        parts.append(f"correlation_id = {tables.text(wanted.correlation)}")
    return " AND ".join(parts)
