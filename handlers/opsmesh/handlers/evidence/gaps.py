"""What the sink tells of what is missing, and what it remembers for that: `watch.json`.

It lies beside `head.json` and may be older than the archive: the lines that came since are read
again at the start, and taking an event twice changes nothing. The one rule: an announcement is in
that file before it is published, and until the broker has it. So it is made once, with one id and
the same bytes, whatever crashes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.handlers.errors import HandlersError
from opsmesh.handlers.evidence import lines, segments
from opsmesh.handlers.evidence.numbering import Boot, Gap, Numbering, Stamp
from opsmesh.router import logs
from opsmesh.schemas import gaps, ids, times
from opsmesh.schemas.envelope import SCHEMA_VERSION, Event, encode, subject

#: What is remembered, beside the archive.
FILE: Final = "watch.json"
#: The `source` of what was removed unread, as the broker calls the sink.
SINK: Final = "evidence-sink"
#: Seconds between looks whether a hole has waited long enough, while there is one.
TICK: Final = 5.0
#: Seconds, or events, after which what is remembered is written: so much is read again at a start.
SAVE_AFTER: Final = 30.0
SAVE_EVERY: Final = 50_000
#: Seconds to wait for the broker.
TIMEOUT: Final = 5.0
#: Announcements whose ids are remembered.
TOLD: Final = 512

log = structlog.get_logger()
_stamp = msgspec.json.Decoder(Stamp).decode


class Announcement(msgspec.Struct, frozen=True):
    """An event to be published; `data` is its JSON."""

    id: str
    subject: str
    data: str


class Memory(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The file: everything up to byte `size` of segment `number` is in it, and perhaps more."""

    number: int = 0
    size: int = 0
    since_us: int = 0
    last_us: int = 0
    vigilant_us: int = 0
    boots: list[Boot] = []
    waiting: list[Announcement] = []
    told: list[str] = []


def stamp(data: bytes) -> Stamp | None:
    """What the sink reads of a message; None when it is no JSON object in UTF-8."""
    try:
        if not data.isascii():
            data.decode()  # the decoder does not look into what it passes over
        return _stamp(data)
    except msgspec.ValidationError:  # an object, and no event of ours
        return None
    except (ValueError, msgspec.DecodeError, RecursionError):
        return None


class Gaps:
    """Takes what is archived, in order, and announces what is missing. One process an archive."""

    def __init__(self, folder: Path, *, host: str, grace_s: float) -> None:
        self._folder = folder
        self._host = host
        self._grace_us = round(grace_s * 1e6)
        self._tick = min(TICK, grace_s / 4)
        self._memory = Memory()
        self._numbering: Numbering | None = None
        self._taken = 0
        self._unsaved = False
        self._seen_at = 0.0
        self._caught_up = False
        self._wake = asyncio.Event()
        self._quiet = logs.Throttle()

    @property
    def vigilant_us(self) -> int:
        """See `doubles`: it survives with the rest."""
        return self._memory.vigilant_us

    def load(self) -> None:
        """Remember; what the archive holds beyond that is taken again."""
        memory = _read(self._folder)
        known = memory is not None
        found = segments.listing(self._folder)
        if memory is None:  # no older boot is known well enough to miss anything of it
            memory = Memory(number=found[-1].number if found else 0)
        self._memory = memory
        if memory.since_us:
            self._begin(memory.since_us, memory.boots)
        removed: tuple[lines.Line, int, int] | None = None
        for line in _lines(found, memory.number, memory.size):
            if line.kind == "note":
                removed = None
                match line.note:
                    case {"kind": "missing", "from": int(first), "to": int(last)}:
                        removed = (line, first, last)
                    case {"kind": "duplicate"}:
                        pass
                continue
            try:
                stored_us = times.parse_us(line.time)
            except ValueError:
                continue
            if removed is not None and known:
                note, first, last = removed
                self.removed(first, last, before=note.prev, stored_us=stored_us)
            removed = None
            one = stamp(line.data)
            if one is not None and one.seq is not None:
                self.take(one, stored_us)
            memory.last_us = stored_us

    def take(self, one: Stamp, stored_us: int) -> None:
        """An event that has a number."""
        (self._numbering or self._begin(stored_us)).take(one, stored_us)

    def removed(self, first: int, last: int, *, before: str, stored_us: int) -> None:
        """The stream no longer had these sequences when they were to be archived; `before` is the
        hash of the line before them, and `stored_us` when the next message was stored."""
        memory = self._memory
        id = ids.derived(stored_us // 1000, "removed", SINK, before, str(first), str(last))
        payload = {
            "source": SINK,
            "kind": gaps.REMOVED,
            "last_known": first - 1,
            "first_known": last + 1,
            "lost": last - first + 1,
            "from_time": times.format_us(memory.last_us) if memory.last_us else None,
            "to_time": times.format_us(stored_us),
            "host": self._host,
        }
        self._announce(id, "mesh.gap.detected", payload, gaps.sentence(payload))

    def staged(self, count: int, *, stored_us: int, caught_up: bool) -> None:
        """So many messages were taken, the last stored then; `caught_up`: there are no more."""
        numbering = self._numbering or self._begin(stored_us)
        self._memory.last_us = stored_us
        self._seen_at, self._caught_up = time.monotonic(), caught_up
        self._taken += count
        if numbering.waits or self._memory.waiting or self._taken == count:
            self._wake.set()

    def committed(self, number: int, size: int, *, vigilant_us: int) -> None:
        """The archive is on disk up to here."""
        if number:
            self._memory.number, self._memory.size = number, size
        self._memory.vigilant_us = vigilant_us
        if self._taken >= SAVE_EVERY:
            self._wake.set()

    async def run(self, client: Client) -> None:
        """Announce what is due, until cancelled."""
        js = client.jetstream(timeout=TIMEOUT)
        saved_at = time.monotonic()
        while True:
            self._look()
            due = time.monotonic() - saved_at >= SAVE_AFTER or self._taken >= SAVE_EVERY
            if self._unsaved or (self._taken and due):
                await self._save()
                saved_at = time.monotonic()
            for one in list(self._memory.waiting):
                if self._unsaved:  # not before it is in the file
                    break
                try:
                    headers = {"Nats-Msg-Id": one.id}
                    await js.publish(one.subject, one.data.encode(), headers=headers)
                except (NatsError, OSError, TimeoutError) as error:
                    if client.is_connected and self._quiet.allows("gap.not_published"):
                        log.warning("gap.not_published", error=f"{type(error).__name__}: {error}")
                    break
                self._memory.waiting.remove(one)
            await self._pause()

    def save(self) -> None:
        """Write what is remembered, now."""
        if self._taken or self._unsaved:
            _write(self._folder, self._encoded())

    async def _save(self) -> None:
        self._taken, self._unsaved, data = 0, False, self._encoded()
        try:
            await asyncio.to_thread(_write, self._folder, data)
        except OSError as error:  # a full disk: the archive itself says so
            self._unsaved = True
            log.debug("gap.not_saved", error=str(error))

    async def _pause(self) -> None:
        numbering = self._numbering
        wait = None
        if self._memory.waiting or (numbering is not None and numbering.waits):
            wait = self._tick
        elif self._taken:
            wait = SAVE_AFTER
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()
        self._wake.clear()

    def _look(self) -> None:
        numbering, memory = self._numbering, self._memory
        if numbering is None or not numbering.waits:
            return
        now_us = memory.last_us
        if self._caught_up:  # nothing comes, and the broker's time goes on
            now_us += round((time.monotonic() - self._seen_at) * 1e6)
        for gap in numbering.ripe(now_us):
            self._tell(gap)

    def _tell(self, gap: Gap) -> None:
        payload: dict[str, Any] = {
            "source": gap.source,
            "lost": gap.lost,
            "from_time": gap.from_time,
            "to_time": gap.to_time,
            "host": gap.host,
            "boot_id": gap.boot_id,
        }
        if gap.gap:
            payload |= {"gap": gap.gap, "found": gap.found}
            self._announce(gap.id, "mesh.gap.filled", payload, gaps.filled(payload))
            return
        more = {"last_known": gap.first - 1, "first_known": gap.last + 1}
        payload |= {"kind": gaps.SEQUENCE, **(more if gap.first else {})}
        self._announce(gap.id, "mesh.gap.detected", payload, gaps.sentence(payload))

    def _announce(self, id: str, topic: str, payload: dict[str, Any], message: str) -> None:
        memory = self._memory
        if id in memory.told:
            return
        event = Event(
            topic=topic,
            ts_utc=times.format_us(times.now_us()),
            source="opsmesh",
            component="sink",
            severity="info" if topic == "mesh.gap.filled" else "warn",
            correlation_id=id,
            host=self._host,
            session_id="",
            workspace="",
            payload={k: v for k, v in {**payload, "message": message}.items() if v is not None},
            id=id,
            schema_version=SCHEMA_VERSION,
        )
        log.warning(topic, id=id, message=message)
        memory.told = [*memory.told[-TOLD:], id]
        memory.waiting.append(Announcement(id, subject(self._host, topic), encode(event).decode()))
        self._unsaved = True
        self._wake.set()

    def _begin(self, since_us: int, boots: list[Boot] | None = None) -> Numbering:
        numbering = Numbering(boots, since_us=since_us, grace_us=self._grace_us)
        self._numbering = numbering
        return numbering

    def _encoded(self) -> bytes:
        if self._numbering is not None:
            self._memory.boots = self._numbering.boots
            self._memory.since_us = self._numbering.since_us
        return msgspec.json.encode(self._memory)


def _read(folder: Path) -> Memory | None:
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Memory)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _write(folder: Path, data: bytes) -> None:
    new = folder / f".{FILE}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / FILE)


def _lines(found: list[segments.Segment], number: int, size: int) -> Iterator[lines.Line]:
    """The lines from byte `size` of a segment on; what is damaged there is `verify`'s business."""
    for segment in found:
        if segment.number < number:
            continue
        skip = size if segment.number == number else 0
        with contextlib.suppress(OSError, HandlersError), segments.opened(segment) as file:
            for raw in file:
                if skip > 0:
                    skip -= len(raw)
                elif (line := lines.parse(raw)) is not None:
                    yield line
