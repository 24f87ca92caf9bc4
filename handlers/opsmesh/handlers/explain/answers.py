"""What came of one event, profile by profile: on record, decided again, or why it is not decided.

What is not on record is decided again from the event and the text that was in force, where these
two give the decision (`Decision.derivable`), and is marked so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import msgspec
from nats.aio.client import Client

from opsmesh.handlers.explain import book as books
from opsmesh.handlers.explain import elsewhere, standing
from opsmesh.handlers.explain.book import Book, Reader, Unreadable
from opsmesh.handlers.explain.elsewhere import RunTold
from opsmesh.handlers.explain.lookup import Lookup, Place
from opsmesh.handlers.explain.mentions import Mention, Role, mentions
from opsmesh.handlers.explain.standing import Files, Told
from opsmesh.handlers.explain.verdicts import Verdict, verdicts
from opsmesh.handlers.live.scope import Scope
from opsmesh.handlers.live.versions import Version
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.ledger import Ledger, Run, run_key
from opsmesh.router.conditions import Last
from opsmesh.router.decide import Decision, decide
from opsmesh.router.rule import ProfileState, Rule
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas.envelope import Event
from opsmesh.schemas.registry import load_registry
from opsmesh.schemas.times import clock

#: `undecided`: not yet, or never; `unheard`: the event is none of its consumer's; `lost`: it was
#: decided, and the record is gone.
Status = Literal["decided", "undecided", "unheard", "lost"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One decision: clause by clause, and the run that came of it.

    `recorded` is False for one that was made again just now. `verdicts` are empty when the event or
    the text that it was made from is gone.
    """

    decision: Decision
    role: Role = "own"
    recorded: bool = True
    took_us: float | None = None
    verdicts: tuple[Verdict, ...] = ()
    run: Run | None = None
    #: What is told of its run, when that is another broker's.
    told: RunTold | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an event for one profile on one consumer.

    `hash` and `state` are those in force when it was decided, or is to be.
    """

    profile: str
    consumer: str = ""
    host: str = ""
    candidate: bool = False
    #: It is a leaf's, as a hub has it.
    leaf: bool = False
    hash: str = ""
    state: ProfileState | None = None
    status: Status
    text: str = ""
    hint: str = ""
    findings: tuple[Finding, ...] = ()


class Explainer:
    """Answers for events, for one command: what it has looked up it keeps."""

    def __init__(self, client: Client, book: Book, lookup: Lookup, files: Files) -> None:
        self.client = client
        self._ledger = Ledger(client)
        self.book = book
        self.lookup = lookup
        self.files = files
        self._cursors: dict[str, int | None] = {}

    @classmethod
    async def open(
        cls, client: Client, *, host: str, config: Path, archive: Path, scope: Scope = "all"
    ) -> Self:
        """With what is on record now at this broker, and the files of the configuration folder."""
        registry = load_registry(config / "topics.yaml")
        lookup = Lookup(client, registry, archive)
        return cls(client, await books.read(client), lookup, Files(config, host, scope))

    async def about(self, place: Place, *, profile: str | None = None) -> list[Answer]:
        """What came of one event, for every profile or for one."""
        found = await mentions(self.client, [place], profile=profile)
        return await self.answers(place, found[place.event.id], profile=profile)

    async def each(
        self, places: Sequence[Place], *, profile: str | None = None
    ) -> list[tuple[Place, list[Answer]]]:
        """The same for several events."""
        found = await mentions(self.client, places, profile=profile)
        return [
            (place, await self.answers(place, found[place.event.id], profile=profile))
            for place in places
        ]

    async def answers(
        self, place: Place, recorded: Sequence[Mention], *, profile: str | None = None
    ) -> list[Answer]:
        """The same, with what is on record of it."""
        readers = self.book.readers if profile is None else self.book.of(profile)
        ours = {(reader.consumer, reader.leaf): reader for reader in readers}
        said: dict[tuple[str, str], list[Mention]] = {}
        orphans: list[Mention] = []
        for mention in recorded:
            record = mention.record
            reader = self.book.owner_of(record.decision, record.consumer, record.leaf)
            if reader is None:
                orphans.append(mention)
            else:
                said.setdefault((reader.consumer, reader.leaf), []).append(mention)
        found = [
            await self.answer(place, reader, said.get(which, ()))
            for which, reader in ours.items()
            if which in said or not _ended_candidate(reader, place)
        ]
        for mention in orphans:
            decision = mention.record.decision
            found.append(
                Answer(
                    profile=decision.profile,
                    host=decision.host,
                    hash=decision.profile_hash,
                    status="decided",
                    text="its text is no longer on record: the clauses cannot be told",
                    findings=(await self.finding(place, mention),),
                )
            )
        known = {answer.profile for answer in found}
        names = self.files.names() if profile is None else {profile} & self.files.names()
        return found + [self._never(name) for name in sorted(names - known)]

    async def answer(self, place: Place, reader: Reader, recorded: Sequence[Mention]) -> Answer:
        """For one consumer."""
        seq = place.seq_at(reader.leaf)
        version = None if seq is None else reader.in_force(seq, place.stored_us)
        answer = Answer(
            profile=reader.profile,
            consumer=reader.consumer,
            host=version.host if version else reader.host,
            candidate=reader.candidate,
            leaf=bool(reader.leaf),
            hash=version.hash if version else "",
            state=version.state if version else None,
            status="undecided",
        )
        if recorded:
            findings = [await self.finding(place, mention) for mention in recorded]
            first = findings[0].decision
            made_by = self.book.behind(first, reader.consumer, reader.leaf)
            answer = msgspec.structs.replace(
                answer,
                status="decided",
                hash=first.profile_hash,
                state=made_by.state if made_by else answer.state,
                findings=tuple(findings),
            )
            if any(_of_its_arrival(finding, seq) for finding in findings):
                return answer
        told, again = await self._unrecorded(place, reader, version)
        if again is not None:
            return msgspec.structs.replace(
                answer, status="decided", findings=(again, *answer.findings)
            )
        status, text = told
        status = "decided" if answer.findings else status
        return msgspec.structs.replace(answer, status=status, text=text.text, hint=text.hint)

    async def _unrecorded(
        self, place: Place, reader: Reader, version: Version | None
    ) -> tuple[tuple[Status, Told], Finding | None]:
        """What is not on record was decided by event and text alone, or is not decided."""
        if place.seq_at(reader.leaf) is None:
            reason = f"{reader.host} decides what its own broker has; this is not from there"
            return ("unheard", Told(reason)), None
        if version is None:
            first = reader.versions[0]
            began = f"its first version is from {clock(first.at_us)} (sequence {first.from_seq})"
            return ("undecided", Told(f"the profile did not exist then: {began}")), None
        if version.source is None:
            when = clock(version.at_us)
            return ("undecided", Told(f"the profile had been removed: {when}")), None
        profile = self.book.text(version)
        if isinstance(profile, Unreadable):
            reason = f"this version of opsmesh cannot read the text of then: {profile.reason}"
            return ("lost", Told(reason)), None
        if not books.shown(profile, version.host, place.event):
            return ("unheard", Told(_unheard(profile, version.host, place.event))), None
        if reader.leaf:
            return self._at_leaf(place, profile, version)
        at = await self._cursor(reader.consumer)
        if version.state == "disabled" and at is not None and at >= place.seq:
            since = clock(version.at_us)
            reason = f"passed over: the profile was disabled since {since} when it came"
            return ("undecided", Told(reason)), None
        if at is None or at < place.seq:
            told = await standing.undecided(self.client, self.files, reader, profile, seq=place.seq)
            return ("undecided", told), None
        decision = again(profile.rule, place, host=version.host)
        if not decision.derivable:
            reason = "it was decided, and the record of it is gone; no clause before the windows"
            return ("lost", Told(f"{reason} says no")), None
        told_by = verdicts(profile.rule, decision, place.event, {})
        return ("decided", Told("")), Finding(decision=decision, recorded=False, verdicts=told_by)

    def _at_leaf(
        self, place: Place, profile: Profile, version: Version
    ) -> tuple[tuple[Status, Told], Finding | None]:
        """How far a leaf is nobody knows here; what event and text give is the same there."""
        decision = again(profile.rule, place, host=version.host, seq=place.seq_at(version.leaf))
        if not decision.derivable:
            text = f"no record of it has come from {version.host}: not decided yet, or cut off"
            there = f"on {version.host}: opsmesh why {place.event.id}"
            return ("undecided", Told(text, there)), None
        told_by = verdicts(profile.rule, decision, place.event, {})
        return ("decided", Told("")), Finding(decision=decision, recorded=False, verdicts=told_by)

    async def finding(self, place: Place, mention: Mention) -> Finding:
        """A record, explained."""
        record, decision = mention.record, mention.record.decision
        return Finding(
            decision=decision,
            role=mention.role,
            took_us=record.took_us,
            verdicts=await self.verdicts(decision, place, record.consumer, record.leaf),
            run=None if record.leaf else await self.run(decision),
            told=await self._told(place, decision) if record.leaf else None,
        )

    async def _told(self, place: Place, decision: Decision) -> RunTold | None:
        if decision.outcome != "fire":
            return None
        return await elsewhere.of_event(
            self.client, place.event.id, decision.profile, decision.host, since_us=place.began_us
        )

    async def verdicts(
        self,
        decision: Decision,
        place: Place | None = None,
        consumer: str = "",
        leaf: str = "",
    ) -> tuple[Verdict, ...]:
        """The clauses of a decision on record; none when what it was made from is gone."""
        version = self.book.behind(decision, consumer, leaf)
        profile = self.book.text(version) if version is not None else None
        if profile is None or isinstance(profile, Unreadable):
            return ()
        if not leaf and (place is None or place.event.id != decision.event_id):
            place = (await self.lookup.at([decision.event_seq])).get(decision.event_seq)
        if place is None or place.event.id != decision.event_id:
            return ()
        # the sequences on a leaf's record are those there
        last = {} if leaf else await self.last(profile.rule, decision)
        return verdicts(profile.rule, decision, place.event, last)

    async def last(self, rule: Rule, decision: Decision) -> dict[Last, Event]:
        """The events that `last(…)` stood for."""
        seqs = {one: decision.last.get(one.call) for one in rule.last}
        places = await self.lookup.at([seq for seq in seqs.values() if seq is not None])
        return {one: places[seq].event for one, seq in seqs.items() if seq in places}

    async def run(self, decision: Decision) -> Run | None:
        """The run of a firing, as far as the ledger still has it."""
        if decision.outcome != "fire":
            return None
        kind, _, trigger_id = (decision.timer or "").partition(".")
        key = run_key(decision.profile, decision.event_id, trigger_id if kind == "trigger" else "")
        held = await self._ledger.get(key)
        return held.run if held is not None else None

    async def _cursor(self, consumer: str) -> int | None:
        if consumer not in self._cursors:
            found = await standing.cursor(self.client, consumer)
            self._cursors[consumer] = found.seq if found else None
        return self._cursors[consumer]

    def _never(self, name: str) -> Answer:
        """A profile that is in the files, and has decided nothing yet."""
        profile = self.files.profile(name)
        told = self.files.idle(name) or Told("no process has taken it up yet", "opsmesh status")
        return Answer(
            profile=name,
            hash=profile.hash if profile else "",
            state=profile.state if profile else None,
            status="undecided",
            text=told.text,
            hint=told.hint,
        )


def again(rule: Rule, place: Place, *, host: str, seq: int | None = None) -> Decision:
    """The decision about an event without anything that is remembered."""
    at = place.seq if seq is None else seq
    decision, _ = decide(rule, place.event, {}, now_us=place.stored_us, host=host, seq=at)
    return decision


def _unheard(profile: Profile, host: str, event: Event) -> str:
    decided = profile.rule.decided
    if listens(decided, event.topic):
        return f"{host} decides its own events; this one is from {event.host}"
    return f"listens to {', '.join(decided)}, not to {event.topic}"


def _ended_candidate(reader: Reader, place: Place) -> bool:
    """A candidate that was not there when the event came is nobody's question."""
    seq = place.seq_at(reader.leaf)
    version = None if seq is None else reader.in_force(seq, place.stored_us)
    return reader.candidate and (version is None or version.source is None)


def _of_its_arrival(finding: Finding, seq: int | None) -> bool:
    """Whether it is what was decided when the event came, by no time and by no hand."""
    decision = finding.decision
    return finding.role == "own" and decision.timer is None and decision.event_seq == seq
