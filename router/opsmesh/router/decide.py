"""The decision engine: a pure function from (rule, event, state) to (decision, changes of state).

No clock, no I/O, no randomness: `now_us` is the time at which the broker stored the event, so that
live handling, a dry run, a backtest and a test of the same events give the same bytes. They differ
only in where the windows are kept. `Decider` keeps them for a whole stream of events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from opsmesh.router import clauses
from opsmesh.router.clauses import CLAUSES, Said, Seen
from opsmesh.router.conditions import Last
from opsmesh.router.rule import Rule
from opsmesh.router.stages import Item, Outcome, Stage, Window, remembered
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas.envelope import Event

#: Windows by `<stage>.<key>`: what a rule remembers.
State = Mapping[str, Window]
#: New windows by the same names; None: forgotten.
Changes = dict[str, Window | None]


class EventRef(msgspec.Struct, frozen=True, array_like=True):
    """Where an event lies in EVENTS."""

    id: str
    seq: int


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was decided, by which clause, and everything that it was decided from.

    It is about one event; `events` are all of a firing that is about several. With `timer` (a
    window's name) a time had come, not an event. `saw` holds the windows that were looked at, and
    `last` the sequences of the newest events that `last(…)` stood for, None for none.
    """

    profile: str
    profile_hash: str
    host: str
    event_id: str
    event_seq: int
    topic: str
    at_us: int
    outcome: Outcome
    clause: str
    reason: str
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    timer: str | None = None
    events: tuple[EventRef, ...] = ()
    saw: dict[str, Window | None] = msgspec.field(default_factory=dict)
    last: dict[str, int | None] = msgspec.field(default_factory=dict)

    @property
    def fires(self) -> bool:
        """It fires, or would if the profile were not in shadow."""
        return self.outcome == "fire" or self.clause == "shadow"

    @property
    def derivable(self) -> bool:
        """Nothing but the event and the rule's text decided: the record can be made again."""
        return self.outcome in ("filtered", "suppressed") and not (
            self.saw or self.last or self.fires or self.timer
        )

    def encode(self) -> bytes:
        """Canonical bytes: equal decisions are equal bytes."""
        return msgspec.json.encode(self, order="deterministic")


class Newest(msgspec.Struct, frozen=True):
    """The newest event that a `last(…)` stands for."""

    seq: int
    event: Event


def decide(
    rule: Rule,
    event: Event,
    state: State,
    *,
    now_us: int,
    host: str,
    seq: int = 0,
    handled: bool = False,
    last: Mapping[Last, Newest] | None = None,
) -> tuple[Decision, Changes]:
    """Decide one event for one rule on `host`; the first clause that says no decides.

    The clauses of `clauses.CLAUSES`, then `handled` (there is a run of this event already), the
    rule's stages, and last of all shadow. Windows of `state` that were due at `now_us` must have
    been given to `due` before.
    """
    newest = last or {}
    seen = Seen(
        event=event,
        view=event.view(),
        host=host,
        now_us=now_us,
        last={one: newest[one].event for one in rule.last if one in newest},
    )
    way = _Way(rule, state, now_us)
    items: tuple[Item, ...] = ()
    said = way.answer(seen) if rule.unless is not None else None
    if said is None:
        said = _refused(rule, seen)
    if said is None and handled:
        said = Said(
            outcome="duplicate",
            clause="event",
            reason="this profile already has a run for this event",
            values={"id": event.id},
        )
    if said is None:
        keys = tuple(window_name(stage, seen.view) for stage in rule.stages if stage.key)
        item = Item(event.id, event.topic, seq, now_us, keys)
        said, items = way.onward(0, (item,), seen.view)
    if said is None:
        said = _fired(rule, seen, way.reason)
    decision = Decision(
        profile=rule.name,
        profile_hash=rule.hash,
        host=host,
        event_id=event.id,
        event_seq=seq,
        topic=event.topic,
        at_us=now_us,
        outcome=said.outcome,
        clause=said.clause,
        reason=said.reason,
        values=said.values,
        events=_refs(items),
        saw=way.shown(fired=bool(items)),
        last={one.call: newest[one].seq if one in newest else None for one in rule.last},
    )
    return decision, way.changes


def due(rule: Rule, name: str, state: State, *, host: str) -> tuple[Decision, Changes]:
    """Decide a window of `state` whose time has come; its `due_us` is the time of the decision."""
    window = state[name]
    at_us = window.due_us or 0
    index, stage = next(
        (n, s) for n, s in enumerate(rule.stages) if s.name == name.partition(".")[0]
    )
    step = stage.due(window)
    way = _Way(rule, state, at_us)
    way.note(stage, name, window, step.window)
    passed = step.passed or ()
    said: Said | None = None
    items: tuple[Item, ...] = ()
    if rule.state == "disabled":
        said = Said(outcome="suppressed", clause="state", reason="the profile is disabled")
    else:
        said, items = way.onward(index + 1, passed, None)
    if said is None:
        clause, reason = way.reason or (stage.name, step.reason)
        said = _shadowed(rule, Said(outcome="fire", clause=clause, reason=reason))
    main = passed[-1]
    decision = Decision(
        profile=rule.name,
        profile_hash=rule.hash,
        host=host,
        event_id=main.id,
        event_seq=main.seq,
        topic=main.topic,
        at_us=at_us,
        outcome=said.outcome,
        clause=said.clause,
        reason=said.reason,
        timer=name,
        events=_refs(items),
        saw=way.shown(fired=bool(items), timer=name),
    )
    return decision, way.changes


def key_of(stage: Stage, view: Mapping[str, Any]) -> str:
    """The key of an event in a stage, as 32 hex digits; `all` for a stage without one."""
    if not stage.key:
        return "all"
    values = [clauses.field(view, path) for path in stage.key]
    return hashlib.sha256(msgspec.json.encode(values, order="deterministic")).hexdigest()[:32]


def window_name(stage: Stage, view: Mapping[str, Any]) -> str:
    """The name of an event's window in a stage: `<stage>.<key>`."""
    return f"{stage.name}.{key_of(stage, view)}"


def _name_of(stage: Stage, item: Item) -> str:
    known = next((k for k in item.keys if k.startswith(f"{stage.name}.")), None)
    # a stage that the profile did not have when the event came takes it as one without the fields
    return known or window_name(stage, {})


class _Way:
    """An event's way through the stages, and what it changes."""

    def __init__(self, rule: Rule, state: State, now_us: int) -> None:
        self._rule = rule
        self._state = state
        self._now_us = now_us
        self._saw: list[tuple[Stage, str, Window | None]] = []
        self.changes: Changes = {}
        #: The stage that made it fire, and why.
        self.reason: tuple[str, str] | None = None

    def answer(self, seen: Seen) -> Said | None:
        """An event that `unless` waits for ends the wait, and is nothing else."""
        rule, unless = self._rule, self._rule.unless
        if unless is None or not listens(unless.on, seen.event.topic):
            return None
        if clauses.state(rule, seen) or clauses.run_on(rule, seen):
            return None
        condition = rule.unless_where
        if condition is not None and clauses.unmet(condition, rule, seen):
            return None
        name = window_name(unless, seen.view)
        window = self._window(name)
        self.note(unless, name, window, None)
        if window is None:
            reason = "nothing waits for it"
        else:
            first = window.items[0]
            waited = (self._now_us - first.stored_us) / 1e6
            reason = f"ends the wait that {first.topic} {first.id} began {waited:.6g} s before"
        values = {path: clauses.field(seen.view, path) for path in unless.key}
        return Said(outcome="filtered", clause="unless", reason=reason, values=values)

    def onward(
        self, index: int, items: tuple[Item, ...], view: Mapping[str, Any] | None
    ) -> tuple[Said | None, tuple[Item, ...]]:
        """Through the stages from `index` on: what stopped it, or the items of the firing."""
        for stage in self._rule.stages[index:]:
            name = _name_of(stage, items[-1])
            window = self._window(name)
            step = stage.arrive(window, items, self._now_us)
            self.note(stage, name, window, step.window)
            if step.passed is None:
                keyed = stage.key if view is not None else ()
                values = {path: clauses.field(view or {}, path) for path in keyed}
                said = Said(
                    outcome=step.outcome, clause=stage.name, reason=step.reason, values=values
                )
                return said, ()
            if step.reason:
                self.reason = (stage.name, step.reason)
            items = step.passed
        return None, items

    def note(self, stage: Stage, name: str, before: Window | None, after: Window | None) -> None:
        self._saw.append((stage, name, before))
        if after is not before:
            self.changes[name] = after

    def shown(self, *, fired: bool, timer: str = "") -> dict[str, Window | None]:
        return {
            name: remembered(stage, window, fired=fired or name == timer)
            for stage, name, window in self._saw
        }

    def _window(self, name: str) -> Window | None:
        window = self._state.get(name)
        return None if window is None or self._now_us >= window.until_us else window


def _refused(rule: Rule, seen: Seen) -> Said | None:
    for clause in CLAUSES:
        said = clause(rule, seen)
        if said is not None:
            return said
    return None


def _fired(rule: Rule, seen: Seen, stage: tuple[str, str] | None) -> Said:
    values = clauses.read(rule.where, seen) if rule.where is not None else {}
    if stage is not None:
        clause, reason = stage
    elif rule.where is not None:
        clause, reason = "where", f"{rule.where.text} is true"
    else:
        clause, reason = "on", f"listens to {seen.event.topic}"
    return _shadowed(rule, Said(outcome="fire", clause=clause, reason=reason, values=values))


def _shadowed(rule: Rule, said: Said) -> Said:
    if rule.state != "shadow":
        return said
    return Said(
        outcome="suppressed",
        clause="shadow",
        reason=f"would have fired ({said.clause}: {said.reason}); the profile is in shadow",
        values=said.values,
    )


def _refs(items: tuple[Item, ...]) -> tuple[EventRef, ...]:
    return tuple(EventRef(item.id, item.seq) for item in items) if len(items) > 1 else ()
