"""What an owner has decided since its last commit, and how that gets to disk.

First what was decided (records, dead letters, ledger intents), then the windows and the cursor as
one batch. A crash between the two is made good by deciding again from the cursor: the same events
and windows give the same decisions, and what was written before has ids derived from them. A run
begins when it is in the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog

from opsmesh.handlers import figures
from opsmesh.handlers.live.firing import Stored
from opsmesh.handlers.live.position import MOST_CHANGES, Cursor, Fenced, Positions
from opsmesh.handlers.live.reading import Incoming
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.ledger import Held, Run
from opsmesh.handlers.runs.runs import Runs, Services
from opsmesh.router import deadletter, logs, wire
from opsmesh.router.connection import AWAY
from opsmesh.router.decide import Changes, Decision
from opsmesh.router.kv import Conflict
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times

#: Decisions after which they should be committed.
FULL: Final = 512
#: Seconds, or events, after which progress that changed nothing but the cursor is noted.
NOTE_AFTER: Final = 2.0
NOTE_EVERY: Final = 1024
#: Seconds between attempts at a write while the broker is away.
RETRY: Final = 1.0

log = structlog.get_logger()


class Commits:
    """One owner's writes for one consumer; `cursor` is what was last written."""

    def __init__(
        self,
        services: Services,
        *,
        consumer: str,
        owner: str,
        recorder: Recorder,
        runs: Runs | None,
    ) -> None:
        self.positions = Positions(services.client)
        self._services = services
        self._consumer = consumer
        self._owner = owner
        self._recorder = recorder
        self._runs = runs
        self._log = log.bind(consumer=consumer)
        self._decisions: list[tuple[Decision, float]] = []
        self._intents: list[tuple[Run, list[Stored]]] = []
        #: A run that has begun, and whose record is on its way.
        self._lone: Held | None = None
        self._letters: list[tuple[Profile, Incoming, str]] = []
        self._changes: Changes = {}
        self._read_to: Incoming | None = None
        self._unread = 0
        self._noted_at = time.monotonic()
        self._taken = False
        self._replicated = False
        self._absences = services.vigil.absences()

    @property
    def seq(self) -> int:
        """The sequence up to which everything is decided, written or not."""
        read_to = self._read_to.seq if self._read_to is not None else 0
        return max(read_to, self.cursor.seq)

    @property
    def rested_s(self) -> float:
        """Seconds since the cursor was last noted."""
        return time.monotonic() - self._noted_at

    @property
    def unnoted(self) -> bool:
        """There is progress that only the cursor tells of."""
        return self._unread > 0

    @property
    def full(self) -> bool:
        """Enough for a commit."""
        return len(self._decisions) >= FULL or len(self._letters) >= FULL

    async def take(self, found: Cursor, revision: int, *, replicated: bool) -> None:
        """Become the owner of the position that stands at `revision`; Fenced when it does not.
        `replicated`: the broker is a cluster (ADR 0026)."""
        self.cursor, self._revision, self._replicated = found, revision, replicated
        await self._save(self._moved({}, found.latest_us))
        self._taken = True

    async def skip(self, seq: int) -> None:
        """Note that there is nothing to decide up to there; Fenced when somebody else has the
        position. Only when everything is written."""
        self._noted_at = time.monotonic()
        cursor = self._moved({}, self.cursor.latest_us)
        if seq > cursor.seq:
            await self._save(msgspec.structs.replace(cursor, seq=seq))

    async def back_to(self, seq: int) -> None:
        """Go on from an earlier place: the stream has lost what came after it."""
        self._read_to, self._unread = None, 0
        self.cursor = msgspec.structs.replace(self.cursor, seq=seq, last={})
        await self._save(self._moved({}, self.cursor.latest_us))

    async def check(self) -> None:
        """Raise Fenced when somebody else has the position."""
        if self._replicated:  # who reads may be told by a replica that has not heard of it yet
            count = self.cursor.count + 1
            cursor = msgspec.structs.replace(self.cursor, count=count, at_us=times.now_us())
            await self._put(cursor, {})
            self.cursor = cursor
            return
        found, _ = await self.positions.cursor(self._consumer)
        if found is None or found.owner != self._owner:
            raise Fenced(self._consumer)

    async def awake(self) -> None:
        """Make sure of the position after a time in which somebody else may have taken it."""
        absences = self._services.vigil.absences()
        if absences != self._absences:
            await self.check()
            self._absences = absences

    async def leave(self) -> None:
        """Note that nothing is under way whose record could be missing."""
        if self._taken and self._runs is not None and self._lone is None:
            await self._put(msgspec.structs.replace(self.cursor, server=""), {})

    def decided(self, decision: Decision, took_us: float) -> None:
        """Note a decision; one that can be made again needs no record."""
        if not decision.derivable:
            self._decisions.append((decision, took_us))

    def intended(self, run: Run, events: list[Stored]) -> None:
        """Note a run that a decision begins."""
        self._intents.append((run, events))

    def refused(self, profile: Profile, incoming: Incoming, reason: str) -> None:
        """Note a message that cannot be decided."""
        self._letters.append((profile, incoming, reason))

    def read(self, incoming: Incoming) -> None:
        """Everything up to this message is decided."""
        self._read_to = incoming
        self._unread += 1

    async def write(
        self, changes: Changes, last: Mapping[str, int], latest_us: int, *, now: bool = False
    ) -> tuple[Incoming, int] | None:
        """Bring everything to disk, however long the broker is away; Fenced when somebody else has
        the position. Progress that changes nothing else can wait a little, unless `now`.

        The message up to which everything may be acknowledged, and how many that are.
        """
        self._changes |= changes
        if not (self._decisions or self._letters or self._changes):
            recent = time.monotonic() - self._noted_at < NOTE_AFTER
            if not self._unread or (recent and not now and self._unread < NOTE_EVERY):
                return None
        await self.awake()
        cursor = self._moved(last, latest_us)
        while True:
            try:
                return await self._write(cursor)
            except AWAY as error:
                if logs.away.allows(logs.BROKER):
                    self._log.warning("profile.not_committed", error=str(error))
                await asyncio.sleep(RETRY)

    async def _write(self, cursor: Cursor) -> tuple[Incoming, int] | None:
        """Everything in its order; it may be done again after it failed halfway."""
        if self._lone is None and len(self._intents) == 1:
            self._lone = self._begin_now(*self._intents[0])
            await asyncio.sleep(0)  # its action comes before what else is to be written
        await asyncio.gather(
            self._begin_runs(),
            self._recorder.write(self._consumer, self._decisions),
            self._dead_letters(),
        )
        await self._save(cursor)
        self._intents.clear()
        self._lone = None
        self._decisions.clear()
        self._letters.clear()
        count, self._unread = self._unread, 0
        return (self._read_to, count) if self._read_to is not None and count else None

    async def _begin_runs(self) -> None:
        """Write the intents, and begin: the record of what was decided may come later, for whoever
        decides it again writes it again."""
        if self._runs is None:
            return
        if self._lone is not None:
            with contextlib.suppress(Conflict):  # what stands there is what the run goes on with
                await self._lone.stored()
            return
        held = await self._runs.store([run for run, _ in self._intents])
        for one, (run, events) in zip(held, self._intents, strict=True):
            if one.run.stream_seq == run.stream_seq:
                self._runs.begin(one, events)
            else:
                self._runs.let_go(run)

    def _begin_now(self, run: Run, events: list[Stored]) -> Held | None:
        """A single run begins while its record is on its way to the disk (ADR 0015)."""
        # in a cluster the node that takes the bytes may be cut off, and another owner at work
        if self._runs is None or self._replicated:
            return None
        if (held := self._runs.store_now(run)) is None:
            return None
        self._runs.begin(held, events)
        return held

    async def _save(self, cursor: Cursor) -> None:
        # more than fit only when a text with very many windows is replaced
        while len(self._changes) > MOST_CHANGES:
            part = dict(list(self._changes.items())[:MOST_CHANGES])
            await self._put(self.cursor, part)
        await self._put(cursor, self._changes)
        self.cursor = cursor
        self._noted_at = time.monotonic()

    async def _put(self, cursor: Cursor, changes: Changes) -> None:
        self._revision = await self.positions.write(self._consumer, cursor, self._revision, changes)
        for name in list(changes):
            del self._changes[name]

    def _moved(self, last: Mapping[str, int], latest_us: int) -> Cursor:
        return msgspec.structs.replace(
            self.cursor,
            seq=self.seq,
            owner=self._owner,
            count=self.cursor.count + 1,
            at_us=times.now_us(),
            last=dict(last) or self.cursor.last,
            latest_us=latest_us,
            server="" if self._replicated else wire.server_id(self._services.client),
            told=max(self.cursor.told, self._runs.told if self._runs is not None else 0),
        )

    async def _dead_letters(self) -> None:
        for profile, incoming, reason in self._letters:
            # evt.<host>.<topic>: what the subject says is all that is known of it
            host, _, topic = incoming.msg.subject.removeprefix("evt.").partition(".")
            await deadletter.write(
                self._services.client,
                profile=profile.name,
                profile_hash=profile.hash,
                host=host,
                topic=topic or "undecodable",
                data=incoming.msg.data,
                headers=incoming.msg.headers,
                reason=reason,
                msg_id=f"dlq:{profile.name}:{EVENTS}:{incoming.seq}",
                origin=(EVENTS, incoming.seq, incoming.stored_us),
                redactor=self._services.redactor,
            )
            figures.DEAD_LETTERS.add(profile.name)
            self._log.error("event.given_up", seq=incoming.seq, reason=reason)
