"""The archive against the stream: what an archive that was written anew cannot change.

Two questions. Does the stream, as far as it still holds messages, hold the same bytes with the same
store times under the same sequences? And do the seals that were announced in it, by their
signatures, name the seals that lie in the archive?
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.handlers.errors import SegmentDamaged
from opsmesh.handlers.evidence import keychain, lines, seals, segments
from opsmesh.handlers.evidence.authority import Authority
from opsmesh.handlers.evidence.lines import Line
from opsmesh.handlers.evidence.report import Problem, ProblemKind, Report
from opsmesh.handlers.evidence.seals import Seal
from opsmesh.handlers.evidence.segments import Segment
from opsmesh.router import sink_consumer
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import envelope, times
from opsmesh.schemas.redact import Redactor

#: Problems of one kind after which the rest is only counted: a whole stream may be another.
ENOUGH: Final = 100


class Stored(msgspec.Struct, frozen=True):
    """A message of the stream."""

    seq: int
    time_us: int
    data: bytes


#: What notes are about that stand for no message.
NO_MESSAGE: Final = frozenset((lines.MISSING, lines.TRUNCATED, lines.REGRESSED))
#: Messages between two reports of progress.
TELL: Final = 1000

_REGRESSED: Final = b'"%s"' % lines.REGRESSED.encode()


class Placed(msgspec.Struct, frozen=True):
    """A line of the archive and its place."""

    segment: Segment
    number: int
    line: Line


def difference(line: Line, stored: Stored, redactor: Redactor | None = None) -> str:
    """What the line says otherwise than the stream; empty when they agree. With the sink's
    `redactor`, a line from which secrets were taken agrees with the message that had them."""
    time = times.format_us(stored.time_us)
    if line.time != time:
        return f"the stream stored it at {time}"
    where = (line.stream, stored.seq, stored.time_us)
    if line.data == stored.data:
        return ""
    if redactor is not None and redactor.same(line.data, stored.data, stored=where):
        return ""
    return "the stream holds other bytes"


async def compare(
    client: Client,
    folder: Path,
    report: Report,
    *,
    key: str | None,
    host: str,
    redactor: Redactor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Add to the report what contradicts the stream. `key` as for `verify`; `host` is whose archive
    this is, and `redactor` what its sink takes secrets out with."""
    against = _Against(report, redactor)
    await against.messages(client, folder, host, progress)
    await against.seals(client, folder, key, host)


class _Against:
    def __init__(self, report: Report, redactor: Redactor | None) -> None:
        self._report = report
        self._redactor = redactor
        self._counts: dict[ProblemKind, int] = {}

    async def messages(
        self,
        client: Client,
        folder: Path,
        host: str,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Walk both in the order of the sequence."""
        report = self._report
        report.compared = 0
        acknowledged = await _acknowledged(client, host)
        state = (await client.jetstream().stream_info(EVENTS)).state
        placed = _since(folder, state.first_seq)
        here, last = next(placed, None), None
        async with contextlib.aclosing(scan(client, EVENTS)) as messages:  # type: ignore[type-var]
            async for msg in messages:
                where = delivery(msg.reply)
                stored = Stored(where.stream_seq, where.timestamp_ns // 1000, msg.data)
                stands = False
                while here is not None and here.line.seq <= stored.seq:
                    if here.line.seq == stored.seq:
                        stands = self._agree(here, stored) or stands
                    last, here = here, next(placed, None)
                report.compared += 1
                if not stands and here is None and stored.seq > acknowledged:
                    report.compared -= 1
                    report.pending += 1
                elif not stands:
                    self._absent(stored, here, last)
                if progress is not None and report.compared % TELL == 0:
                    progress(stored.seq - state.first_seq, state.last_seq - state.first_seq + 1)

    def _agree(self, here: Placed, stored: Stored) -> bool:
        """Whether the line stands for the message; it may say something else of it."""
        line = here.line
        if line.kind == "note":
            facts = line.note
            if facts.get("kind") in NO_MESSAGE:
                return False
            # a note that stands for a message that is archived elsewhere says which bytes it had
            said = "the stream holds other bytes" if self._is_another(facts, stored) else ""
        else:
            said = difference(line, stored, self._redactor)
        if said:
            message = f"the line of sequence {line.seq} is not what the stream holds: {said}"
            self._put(here.segment.name, here.number, "contradicted", message)
        return True

    def _is_another(self, facts: dict[str, Any], stored: Stored) -> bool:
        """Whether a note that stands for a message says that it had other bytes."""
        known = [stored.data]
        if self._redactor is not None:
            where = (EVENTS, stored.seq, stored.time_us)
            known.append(self._redactor.redact_bytes(stored.data, stored=where))
        made = {hashlib.sha256(data).hexdigest() for data in known}
        return facts.get("sha256") not in (None, *made)

    def _absent(self, stored: Stored, here: Placed | None, last: Placed | None) -> None:
        at = here or last
        file, line = (at.segment.name, at.number) if at is not None else (segments.HEAD, 1)
        kind: ProblemKind = "removed" if here is not None else "truncated"
        message = f"sequence {stored.seq} is in the stream, and not in the archive"
        if last is not None and last.line.seq == stored.seq:
            file, line = last.segment.name, last.number
            message += ", which has a note in its place"
        self._put(file, line, kind, message)

    async def seals(self, client: Client, folder: Path, key: str | None, host: str) -> None:
        """Compare every announced seal of this archive, and of this host, with what lies here."""
        try:
            authority = Authority(keychain.read(folder), key)
        except keychain.BrokenChain:
            return  # verify has said so, and no signature can be checked
        entries = authority.entries
        archive = entries[0].statement.archive if entries else ""
        sealed = {segment.number: segment for segment in segments.sealed(folder)}
        newest: Seal | None = None
        subjects = [f"evt.*.{seals.TOPIC}"]
        async with contextlib.aclosing(scan(client, EVENTS, subjects=subjects)) as messages:  # type: ignore[type-var]
            async for msg in messages:
                seal = _announced(msg.data)
                mine = msg.subject.split(".")[1] == envelope.host_token(host)
                if seal is None or not (mine or seal.manifest.archive == archive):
                    continue
                if mine:
                    newest = seal
                if seal.manifest.archive != archive:
                    continue
                if authority.fault(seal) is not None:
                    place = f"stream {EVENTS}"
                    message = f"an announced seal of segment {seal.manifest.segment} was signed by "
                    message += "no key of this archive"
                    self._put(place, delivery(msg.reply).stream_seq, "bad seal", message)
                    continue
                self._sealed(seal, sealed.get(seal.manifest.segment))
        if newest is not None and newest.manifest.archive != archive:
            message = f"the newest seal that {host} announced is of archive "
            message += f"{newest.manifest.archive}, not of this one"
            self._put(keychain.NAME, 1, "contradicted", message, newest.manifest.archive, archive)

    def _sealed(self, announced: Seal, segment: Segment | None) -> None:
        manifest = announced.manifest
        if segment is None:
            message = f"segment {manifest.segment} was sealed with sequences "
            message += f"{manifest.first_seq} to {manifest.last_seq}, as the stream says, and its "
            message += "seal is not here"
            self._put(manifest.file, 1, "contradicted", message, announced.hash)
            return
        found = seals.hash_of(segment)
        if found != announced.hash:
            file = segment.seal.relative_to(segment.folder).as_posix()
            message = "this is not the seal that was announced in the stream"
            self._put(file, 1, "contradicted", message, announced.hash, found)

    def _put(
        self,
        file: str,
        line: int,
        kind: ProblemKind,
        message: str,
        expected: str = "",
        found: str = "",
    ) -> None:
        self._counts[kind] = count = self._counts.get(kind, 0) + 1
        if count > ENOUGH:
            return
        if count == ENOUGH:
            message += " (more like this are not listed)"
        self._report.problems.append(
            Problem(
                file=file, line=line, kind=kind, message=message, expected=expected, found=found
            )
        )


def _since(folder: Path, first_seq: int) -> Iterator[Placed]:
    """The archive's lines of the stream as it is now, from a sequence on: behind the last place
    where it began again. Lines that are none are passed over."""
    chosen: list[Segment] = []
    skip = 0
    for segment in reversed(segments.listing(folder)):
        chosen.insert(0, segment)
        skip = _last_beginning(segment)
        if skip or segment.first_seq <= first_seq:
            break
    for segment in chosen:
        try:
            with segments.opened(segment) as file:
                for number, raw in enumerate(file, 1):
                    line = lines.parse(raw) if number > skip else None
                    if line is not None and line.seq >= first_seq:
                        yield Placed(segment, number, line)
        except SegmentDamaged:
            pass  # verify has said so; what it held is found missing
        skip = 0


def _last_beginning(segment: Segment) -> int:
    """The number of the last line that says the stream began again; 0 when there is none."""
    found = 0
    with contextlib.suppress(SegmentDamaged), segments.opened(segment) as file:
        for number, raw in enumerate(file, 1):
            if _REGRESSED in raw and (line := lines.parse(raw)) is not None:
                found = number if line.note.get("kind") == lines.REGRESSED else found
    return found


class _Sealed(msgspec.Struct):
    payload: dict[str, Any] = {}


def _announced(data: bytes) -> Seal | None:
    """The seal in an event; None when there is none that can be read."""
    try:
        text = msgspec.json.decode(data, type=_Sealed).payload.get("seal")
        return seals.parse(f"{text}\n".encode())
    except (ValueError, msgspec.DecodeError):
        return None


async def _acknowledged(client: Client, host: str) -> int:
    """Up to where the sink has told the broker that it is on disk."""
    try:
        info = await client.jetstream().consumer_info(EVENTS, sink_consumer.name(host))
    except NotFoundError:
        return 0
    return info.ack_floor.stream_seq if info.ack_floor is not None else 0
