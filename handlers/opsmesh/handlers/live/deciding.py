"""One owner's time with a profile: from taking its position to letting it go.

It reads events in the order of the stream, decides them, and hands what follows to `commits`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

import msgspec
import structlog
from nats.js.errors import NotFoundError

from opsmesh.handlers import figures
from opsmesh.handlers.live import firing, unread, versions
from opsmesh.handlers.live.commits import NOTE_AFTER, Commits
from opsmesh.handlers.live.consumers import filter_subjects
from opsmesh.handlers.live.firing import Gone, Stored
from opsmesh.handlers.live.position import Cursor, Fenced
from opsmesh.handlers.live.reading import Incoming, Lost, Reading
from opsmesh.handlers.live.records import Recorder
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.ledger import Run, run_key
from opsmesh.handlers.runs.runs import Runs, Services
from opsmesh.router import topology, traces, wire
from opsmesh.router.conditions import Last
from opsmesh.router.connection import AWAY
from opsmesh.router.decide import Decision, EventRef, Newest
from opsmesh.router.decider import Decider
from opsmesh.router.errors import Unreadable
from opsmesh.router.rule import Rule
from opsmesh.router.topology import API_TIMEOUT, EVENTS
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, decode, host_token
from opsmesh.schemas.errors import SchemaError

#: Events that are read between two commits at most.
READ_AT_ONCE: Final = 512
#: Seconds between turns when nothing happens.
IDLE: Final = 30.0
#: Seconds between looks whether everything has been read, when a time has come.
CATCH_UP: Final = 0.02
#: An event that is stored so long after it was made (or, by a clock that is wrong, before) may have
#: been stored before, longer ago than the broker remembers ids: the ledger is asked. In
#: milliseconds.
LATE_MS: Final = 10 * 60 * 1000
#: Seconds after which the cursor of an owner that hears nothing is moved to the stream's end.
FORWARD: Final = 3600.0
#: Events with a run that are remembered without asking the ledger.
RECENT: Final = 20_000
#: Seconds that an owner has for its farewell.
LEAVE: Final = 1.0
#: Seconds that a replica may be behind its leader while it counts as current: what a predecessor
#: wrote last is there after that.
BEHIND: Final = 0.5
#: Messages that are kept for firings by a timer.
KEPT: Final = 256

log = structlog.get_logger()


class Deciding:
    """Decides one profile's events while nobody else does. `runs` is None for a candidate, whose
    decisions are on record and have no effect."""

    def __init__(
        self,
        profile: Profile,
        services: Services,
        *,
        consumer: str,
        owner: str,
        recorder: Recorder,
        runs: Runs | None,
    ) -> None:
        self.profile = profile
        self._services = services
        self._consumer = consumer
        self._runs = runs
        self._commits = Commits(
            services, consumer=consumer, owner=owner, recorder=recorder, runs=runs
        )
        self._decider = Decider(profile.rule, host=services.host)
        self._reading = Reading(services.client, consumer)
        self._exchange: Profile | None = None
        #: The first firing up to this sequence may have been begun by a predecessor.
        self._perhaps = 0
        self._recent: dict[str, int] = {}
        self._kept: dict[int, Stored] = {}
        self._log = log.bind(profile=profile.name, consumer=consumer)

    @property
    def cursor(self) -> Cursor:
        """How far it is, as it was last noted."""
        return self._commits.cursor

    @property
    def decided(self) -> int:
        """The sequence up to which everything is decided, noted or not."""
        return self._commits.seq

    async def begin(self, found: Cursor | None, revision: int) -> None:
        """Take the position that was `found`: from here on, whoever had it is fenced off; Fenced
        when somebody else was faster."""
        info = await self._services.client.jetstream(timeout=API_TIMEOUT).stream_info(EVENTS)
        last_seq, replicated = info.state.last_seq, topology.replicated(info)
        if found is None:  # a new profile does not act on the past
            found = Cursor(seq=last_seq, owner="", count=0, at_us=0)
        elif found.owner and await self._was_disabled():
            # enabled in its file, and nobody said what to do with what came meanwhile
            found = msgspec.structs.replace(found, shadow_until=last_seq)
        if found.server and found.server != wire.server_id(self._services.client):
            # its owner did not let go, and the record of the run that it may have begun last was
            # perhaps on its way to a broker that is no more
            self._perhaps = last_seq
        await self._commits.take(found, revision, replicated=replicated)
        if replicated:
            await asyncio.sleep(BEHIND)
        await self._tell_removed(found, info.state.first_seq)
        self._decider = Decider(
            self._rule(found.seq + 1),
            host=self._services.host,
            windows=await self._commits.positions.windows(self._consumer),
            last=await self._newest(),
            latest_us=found.latest_us,
        )
        # Whoever took it meanwhile has changed windows while they were read; what is decided with
        # such a mixture would be on record before the next commit could refuse it.
        await self._commits.check()
        await self._version(found.seq + 1)
        await self._resume()
        await self._read()

    async def work(self) -> None:
        """Decide until cancelled, or Fenced."""
        while True:
            try:
                await self._turn()
            except Lost as lost:
                self._log.debug("profile.reading_again", reason=str(lost))
                await self._commit(now=True)
                await self._commits.check()
                await self._read()

    async def end(self) -> None:
        """Let go. What is not committed is decided again by whoever comes next: an end between two
        commits is no other case than a crash."""
        if self._runs is not None:
            self._runs.unreserve()
        await self._reading.stop()
        with contextlib.suppress(Fenced, *AWAY):
            async with asyncio.timeout(LEAVE):
                await self._commits.leave()

    def exchange(self, profile: Profile) -> None:
        """Go on with a new text or state, from the next event on."""
        self._exchange = profile
        self._reading.nudge()

    async def _turn(self) -> None:
        await self._commits.awake()
        if self._exchange is not None:
            await self._exchanged(self._exchange)
        for incoming in await self._reading.next(self._patience(), READ_AT_ONCE):
            await self._event(incoming)
        due_us = self._decider.next_due()
        if due_us is not None and due_us <= times.now_us():
            await self._alarm(due_us)
        await self._commit()
        if self._commits.rested_s >= FORWARD:
            await self._forward()

    async def _forward(self) -> None:
        """Nothing has come for long: note that nothing waits, so that what the stream removes one
        day is not taken for something unread."""
        info = await self._services.client.jetstream().stream_info(EVENTS)
        if await self._reading.caught_up() is not None:
            await self._commits.skip(info.state.last_seq)

    async def _tell_removed(self, found: Cursor, first_seq: int) -> None:
        count = unread.removed(found, first_seq)
        if not count or self._runs is None:
            return
        client, host = self._services.client, self._services.host
        told = await unread.event(client, found, first_seq, consumer=self._consumer, host=host)
        self._log.warning("profile.removed_unread", sequences=count, id=told.id)
        await self._services.publish(told)
        await self._commits.skip(first_seq - 1)

    def _patience(self) -> float:
        """Seconds until something has to be done without an event."""
        longest = NOTE_AFTER if self._commits.unnoted else IDLE
        due_us = self._decider.next_due()
        if due_us is None:
            return longest
        return min(longest, max(0.0, (due_us - times.now_us()) / 1e6))

    async def _event(self, incoming: Incoming) -> None:
        if self._decider.rule.state != self.profile.state:
            await self._out_of_shadow(incoming.seq)
        stored_us = incoming.stored_us
        try:
            event = self._services.registry.upcast(
                decode(incoming.msg.data, stored=(EVENTS, incoming.seq, stored_us))
            )
        except SchemaError as error:
            self._commits.refused(self.profile, incoming, f"undecodable: {error}")
        else:
            await self._advance(stored_us)
            if not self._decider.misses(event, stored_us=stored_us):
                await self._decide(event, incoming)
        self._commits.read(incoming)
        if self._commits.full:
            await self._commit()

    async def _decide(self, event: Event, incoming: Incoming) -> None:
        self._keep(event, incoming)
        handled = await self._handled(event, incoming)
        began = time.perf_counter_ns()
        try:
            decision = self._decider.decide(
                event, seq=incoming.seq, stored_us=incoming.stored_us, handled=handled
            )
        except Exception as error:  # a mistake of ours: it would be made again for ever
            self._log.exception("event.not_decided", seq=incoming.seq)
            self._commits.refused(
                self.profile, incoming, f"cannot be decided: {type(error).__name__}: {error}"
            )
            return
        if decision is not None:
            await self._note(decision, began)

    async def _alarm(self, due_us: int) -> None:
        """A window's time has come. What was stored before it is decided first."""
        now_us = await self._reading.caught_up()
        if now_us is None or now_us < due_us:
            await asyncio.sleep(CATCH_UP)
            return
        await self._advance(now_us)

    async def _advance(self, now_us: int) -> None:
        began = time.perf_counter_ns()
        for decision in self._decider.advance(now_us):
            await self._note(decision, began)
            if self._commits.full:
                await self._commit()
            began = time.perf_counter_ns()

    async def _note(self, decision: Decision, began_ns: int) -> None:
        took_us = (time.perf_counter_ns() - began_ns) / 1e3
        self._commits.decided(decision, took_us)
        figures.DECISIONS.add(decision.profile, decision.outcome)
        figures.DECIDING.observe(took_us / 1e6)
        if traces.on():
            self._trace(decision, took_us)
        if decision.outcome == "fire" and self._runs is not None:
            await self._intend(decision)

    def _trace(self, decision: Decision, took_us: float) -> None:
        kept = self._kept.get(decision.event_seq)
        traces.record(
            f"decide {decision.profile}",
            kept.event.traceparent if kept is not None else None,
            took_s=took_us / 1e6,
            kind="consumer",
            event_id=decision.event_id,
            profile=decision.profile,
            outcome=decision.outcome,
            clause=decision.clause,
        )

    async def _intend(self, decision: Decision) -> None:
        refs = decision.events or (EventRef(decision.event_id, decision.event_seq),)
        try:
            stored = [
                self._kept.get(ref.seq) or await firing.read(self._services.client, ref)
                for ref in refs
            ]
        except Gone as gone:  # nothing can be done for an event that nobody has any more
            self._log.error("firing.without_event", error=str(gone))
            return
        main = next(one for one in stored if one.event.id == decision.event_id)
        run = firing.new_run(
            self.profile,
            main.event,
            consumer=self._consumer,
            host=self._services.host,
            seq=main.seq,
            stored_us=main.stored_us,
            due_us=decision.at_us if decision.timer else 0,
            events=decision.events,
        )
        if main.seq <= self._perhaps:
            firing.perhaps_begun(run, self.profile.steps[0])
        self._perhaps = 0  # at most one was on its way
        self._remember(run)
        self._commits.intended(run, stored)

    async def _commit(self, *, now: bool = False) -> None:
        decider = self._decider
        last = {one.call: newest.seq for one, newest in decider.last.items()}
        done = await self._commits.write(decider.take_changes(), last, decider.latest_us, now=now)
        if done is not None:
            figures.READ.add(self.profile.name, by=done[1])
            await self._reading.ack(*done)

    async def _exchanged(self, profile: Profile) -> None:
        await self._commit(now=True)
        self._exchange = None
        subjects = filter_subjects(self.profile, self._services.host)
        self.profile = profile
        seq = self._commits.seq
        self._decider.exchange(self._rule(seq + 1))
        self._decider.last |= await self._newest()
        await self._version(seq + 1)
        self._log.info("profile.changed", hash=profile.hash, state=profile.state)
        if filter_subjects(profile, self._services.host) != subjects:
            await self._read()

    def _rule(self, seq: int) -> Rule:
        """The rule for the event at `seq`: a backlog may be decided as in shadow."""
        if seq <= self.cursor.shadow_until:
            return self.profile.with_state("shadow").rule
        return self.profile.rule

    async def _out_of_shadow(self, seq: int) -> None:
        """The backlog that was to be decided as in shadow ends before `seq`."""
        if seq > self.cursor.shadow_until:
            await self._commit(now=True)
            self._decider.exchange(self._rule(seq))
            await self._version(seq)

    async def _version(self, from_seq: int) -> None:
        profile = self.profile.with_state(self._decider.rule.state)
        await versions.write(
            self._services.client,
            profile,
            consumer=self._consumer,
            host=self._services.host,
            from_seq=from_seq,
        )

    async def _was_disabled(self) -> bool:
        newest = await versions.newest(self._services.client, self._consumer)
        return newest is not None and newest.state == "disabled"

    async def _newest(self) -> dict[Last, Newest]:
        """The events that `last(…)` stands for at the cursor, as far as they are not known."""
        js = self._services.client.jetstream()
        found: dict[Last, Newest] = {}
        for one in self.profile.rule.last:
            if one in self._decider.last:
                continue
            host = "*" if one.anywhere else host_token(self._services.host)
            try:
                seq = self.cursor.last.get(one.call)
                if seq is None:
                    msg = await js.get_last_msg(EVENTS, f"evt.{host}.{one.topic}")
                else:
                    msg = await js.get_msg(EVENTS, seq)
                stored_us = round(msg.time.timestamp() * 1e6) if msg.time else 0
                stored = (EVENTS, msg.seq or 0, stored_us)
                event = self._services.registry.upcast(decode(msg.data or b"", stored=stored))
            except (NotFoundError, SchemaError, Unreadable):
                continue
            if (msg.seq or 0) <= self._commits.seq:
                found[one] = Newest(msg.seq or 0, event)
        return found

    async def _resume(self) -> None:
        """What was fired before: to know it again, and to bring it to its end."""
        unfinished, ended = [], []
        async for held in self._services.ledger.all(self.profile.name):
            if held.run.consumer not in ("", self._consumer):
                continue
            self._remember(held.run)
            if not held.run.finished:
                unfinished.append(held)
            if held.run.finished or held.run.state == "retrying":
                ended.append(held)
        if self._runs is not None:
            self._runs.exchange(self.profile)
            await self._runs.tell(ended, self.cursor.told)
            self._runs.resume(unfinished)

    async def _read(self) -> None:
        subjects = filter_subjects(self.profile, self._services.host)
        kept = await self._reading.lost_from(
            self._commits.seq, self.cursor.latest_us or self.cursor.at_us, subjects
        )
        if kept is not None:
            self._log.critical("profile.stream_went_back", seq=self._commits.seq, goes_on_from=kept)
            await self._commits.back_to(kept)
        await self._reading.start(self._commits.seq, subjects, description=self.profile.description)

    def _keep(self, event: Event, incoming: Incoming) -> None:
        """Firings by a timer are mostly about what has just been read."""
        self._kept[incoming.seq] = Stored(
            event=event,
            data=incoming.msg.data,
            seq=incoming.seq,
            stored_us=incoming.stored_us,
            headers=incoming.msg.headers or {},
        )
        if len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    async def _handled(self, event: Event, incoming: Incoming) -> bool:
        """Whether another message with this event has a run already."""
        known = self._recent.get(event.id)
        if known is not None:
            return known != incoming.seq
        made_ms = ids.unix_ms(event.id)
        if made_ms is not None and abs(incoming.stored_us // 1000 - made_ms) < LATE_MS:
            return False
        held = await self._services.ledger.get(run_key(self.profile.name, event.id))
        return held is not None and held.run.stream_seq != incoming.seq

    def _remember(self, run: Run) -> None:
        if not run.trigger_id:
            self._recent[run.event_id] = run.stream_seq
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]
