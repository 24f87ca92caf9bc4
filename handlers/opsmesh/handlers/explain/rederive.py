"""Recorded decisions made again from their recorded inputs: the same bytes, or what differs.

Inputs are the event (stream or archive), the text by its hash, the windows that were seen, and the
events that `last(…)` stood for. Whether an event had a run already is no recorded input: what the
record says of it is believed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal

import msgspec

from opsmesh.handlers.explain.answers import Explainer
from opsmesh.handlers.explain.book import Unreadable
from opsmesh.handlers.live.records import Record
from opsmesh.router.decide import Decision, Newest, State, decide, due
from opsmesh.router.rule import Rule

#: Records whose events are fetched together.
BATCH = 256


class Difference(msgspec.Struct, frozen=True):
    """One field of a decision that came out otherwise."""

    field: str
    recorded: Any
    derived: Any


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One record made again. `unchecked`: an input is gone, or a person's trigger decided."""

    decision: Decision
    result: Literal["same", "different", "unchecked"]
    bytes: int
    reason: str = ""
    differences: tuple[Difference, ...] = ()


async def check_all(
    explainer: Explainer, records: AsyncIterator[Record] | Iterable[Record]
) -> AsyncIterator[Check]:
    """Every record, in its order."""
    batch: list[Record] = []
    async for record in _each(records):
        batch.append(record)
        if len(batch) == BATCH:
            for found in await _checked(explainer, batch):
                yield found
            batch = []
    for found in await _checked(explainer, batch):
        yield found


async def check(explainer: Explainer, record: Record) -> Check:
    """One record."""
    decision = record.decision
    if decision.clause == "trigger":
        return _unchecked(record, "a person's trigger decided, no clause")
    version = explainer.book.behind(decision, record.consumer, record.leaf)
    if version is None:
        return _unchecked(record, f"the text {decision.profile_hash} is no longer on record")
    profile = explainer.book.text(version)
    if isinstance(profile, Unreadable):
        return _unchecked(record, f"this version of opsmesh cannot read the text: {profile.reason}")
    if profile.hash != decision.profile_hash:
        reason = "this version of opsmesh reads the text otherwise: it has another hash now"
        return _unchecked(record, reason)
    state = {name: window for name, window in decision.saw.items() if window is not None}
    if decision.timer is not None:
        if decision.timer not in state:
            return _unchecked(record, f"the window {decision.timer} is not on record")
        return compare(record, due(profile.rule, decision.timer, state, host=decision.host)[0])
    if record.leaf:
        host = decision.host
        return _unchecked(record, f"made on {host}, from events as they lie there: check it there")
    return await _event(explainer, record, profile.rule, state)


def compare(record: Record, derived: Decision) -> Check:
    """The record beside the decision that was made again."""
    if derived.encode() == record.data:
        return Check(decision=record.decision, result="same", bytes=len(record.data))
    was, now = msgspec.to_builtins(record.decision), msgspec.to_builtins(derived)
    fields = [name for name in Decision.__struct_fields__ if was.get(name) != now.get(name)]
    return Check(
        decision=record.decision,
        result="different",
        bytes=len(record.data),
        reason="" if fields else "the same fields in other bytes",
        differences=tuple(Difference(name, was.get(name), now.get(name)) for name in fields),
    )


async def _event(explainer: Explainer, record: Record, rule: Rule, state: State) -> Check:
    decision = record.decision
    if decision.fires and not decision.saw:  # a live replay is decided without stages
        rule = rule.without_memory()
    wanted = {one: decision.last.get(one.call) for one in rule.last}
    seqs = [decision.event_seq, *(seq for seq in wanted.values() if seq is not None)]
    places = await explainer.lookup.at(seqs)
    gone = sorted(set(seqs) - places.keys())
    if gone:
        return _unchecked(record, f"no stream and no archive has the event {gone[0]} any more")
    place = places[decision.event_seq]
    if place.event.id != decision.event_id:
        reason = f"sequence {decision.event_seq} holds another event, {place.event.id}"
        return _unchecked(record, reason)
    derived, _ = decide(
        rule,
        place.event,
        state,
        now_us=decision.at_us,
        host=decision.host,
        seq=decision.event_seq,
        handled=decision.outcome == "duplicate",
        last={o: Newest(seq, places[seq].event) for o, seq in wanted.items() if seq is not None},
    )
    return compare(record, derived)


async def _checked(explainer: Explainer, batch: list[Record]) -> list[Check]:
    decisions = [record.decision for record in batch]
    lasts = [seq for decision in decisions for seq in decision.last.values() if seq is not None]
    await explainer.lookup.at([*(d.event_seq for d in decisions if not d.timer), *lasts])
    found = [await check(explainer, record) for record in batch]
    explainer.lookup.forget()
    return found


async def _each(records: AsyncIterator[Record] | Iterable[Record]) -> AsyncIterator[Record]:
    if isinstance(records, AsyncIterator):
        async for record in records:
            yield record
    else:
        for record in records:
            yield record


def _unchecked(record: Record, reason: str) -> Check:
    return Check(
        decision=record.decision, result="unchecked", bytes=len(record.data), reason=reason
    )
