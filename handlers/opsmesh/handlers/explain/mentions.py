"""Recorded decisions that have to do with one event: its own, and what came of its waiting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from nats.aio.client import Client

from opsmesh.handlers.explain.lookup import Place
from opsmesh.handlers.explain.verdicts import WAITS
from opsmesh.handlers.live import records
from opsmesh.handlers.live.records import Record
from opsmesh.router.decide import Decision
from opsmesh.router.scan import scan
from opsmesh.router.topology import DECISIONS, FIRINGS

#: `own`: about the event. `held`: a firing of several events, this one among them. `ended`: what
#: `unless` waited for, and came. `replaced`: a later event of its burst. `window`: the time of the
#: window in which it was had come, for another event.
Role = Literal["own", "held", "ended", "replaced", "window"]

#: Records are stored after their event by the same clock; more than enough, in microseconds.
_SLACK_US: Final = 1_000_000
_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class Mention(msgspec.Struct, frozen=True, kw_only=True):
    """One record, and what it is to the event."""

    role: Role
    record: Record


async def mentions(
    client: Client, places: Sequence[Place], *, profile: str | None = None
) -> dict[str, list[Mention]]:
    """By the events' ids, each in the order of time; of one profile, or of all."""
    finders = {place.event.id: _Finder(place.event.id) for place in places}
    ids = {msgspec.json.encode(event_id)[1:-1]: event_id for event_id in finders}
    since_us = min((place.began_us for place in places), default=0) - _SLACK_US
    for stream, kind in ((DECISIONS, "dec"), (FIRINGS, "fir")) if places else ():
        subjects = [f"{kind}.{profile}.>"] if profile else None
        async for msg in scan(client, stream, subjects=subjects, since_us=since_us):
            # most records are about other events: they are not even decoded
            named = ids.keys() & set(_STRING.findall(msg.data))
            timed = b'"timer":"' in msg.data
            chosen = [finders[ids[text]] for text in named]
            if timed:
                chosen += [f for f in finders.values() if f.waits and f not in chosen]
            record = records.read(msg) if chosen else None
            if record is not None:
                for finder in chosen:
                    finder.take(record)
    return {
        event_id: sorted(
            finder.found, key=lambda one: (one.record.decision.at_us, one.record.stored_us)
        )
        for event_id, finder in finders.items()
    }


class _Finder:
    """Takes records in the order of the streams: the quiet ones, then the firings."""

    def __init__(self, event_id: str) -> None:
        self._id = event_id
        self.found: list[Mention] = []
        #: Windows in which the event is, whose time may still come.
        self.waits: set[tuple[str, str, str, str]] = set()

    def take(self, record: Record) -> None:
        """Note the record when it has to do with the event."""
        decision = record.decision
        window = _window(decision, decision.timer or "")
        role = self._role(decision)
        if role is None and window in self.waits:
            role = "window"
        if decision.timer:
            self.waits.discard(window)
        if role is None:
            return
        self.found.append(Mention(role=role, record=record))
        if role == "own" and decision.outcome in WAITS:
            begin = f"{decision.clause}."
            self.waits |= {_window(decision, n) for n in decision.saw if n.startswith(begin)}

    def _role(self, decision: Decision) -> Role | None:
        if decision.event_id == self._id:
            return "own"
        if any(ref.id == self._id for ref in decision.events):
            return "held"
        inside = any(
            item.id == self._id
            for name, window in decision.saw.items()
            if window is not None and name.startswith(f"{decision.clause}.")
            for item in window.items
        )
        if inside and (decision.clause, decision.outcome) == ("unless", "filtered"):
            return "ended"
        if inside and (decision.clause, decision.outcome) == ("debounce", "debounced"):
            return "replaced"
        return None


def _window(decision: Decision, name: str) -> tuple[str, str, str, str]:
    return decision.profile, decision.profile_hash, decision.host, name
