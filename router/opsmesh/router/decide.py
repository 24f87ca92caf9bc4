"""The decision engine: a pure function from (rule, event, state) to (decision, state).

No clock, no I/O, no randomness: `now_us` is the time at which the broker stored the event, so that
live handling, a dry run, a replay and a test of the same events give the same bytes. They differ
only in where the state is kept.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from opsmesh.router.conditions import ConditionError, Expression
from opsmesh.schemas.envelope import Event, host_token

ProfileState = Literal["enabled", "shadow", "disabled"]
Outcome = Literal["fire", "filtered", "debounced", "duplicate", "suppressed"]

#: How often an event may have caused another before a profile no longer acts on it.
DEFAULT_MAX_HOPS: Final = 8


class Debounce(msgspec.Struct, frozen=True, kw_only=True):
    """Fire on the first event of a burst; a burst ends after `window_us` without an event.

    `max_wait_us` bounds the silence of a burst that never ends. `key` names the event's fields
    that tell bursts apart; the profile itself always does.
    """

    window_us: int
    max_wait_us: int | None = None
    key: tuple[str, ...] = ("topic", "workspace")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a profile that decides."""

    name: str
    hash: str
    on: tuple[str, ...]
    where: Expression | None = None
    run_on: str = "origin"
    state: ProfileState = "enabled"
    debounce: Debounce | None = None
    max_hops: int = DEFAULT_MAX_HOPS
    vars: Mapping[str, Any] = msgspec.field(default_factory=dict)


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One burst: when and by which event it fired, and its last event so far."""

    fired_us: int
    fired_id: str
    last_us: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision may know of the past: whether this event already has a run of this profile,
    and the burst that its debounce key is in."""

    seen: bool = False
    window: Window | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was decided, by which clause, and the values that the clause read."""

    profile: str
    profile_hash: str
    event_id: str
    topic: str
    at_us: int
    outcome: Outcome
    clause: str
    reason: str
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    window: Window | None = None

    def encode(self) -> bytes:
        """Canonical bytes: equal decisions are equal bytes."""
        return msgspec.json.encode(self, order="deterministic")


class Miss(msgspec.Struct, frozen=True, kw_only=True):
    """The clause that kept a profile from firing."""

    outcome: Outcome
    clause: str
    reason: str
    values: dict[str, Any] = msgspec.field(default_factory=dict)


def decide(
    rule: Rule, event: Event, state: State, *, now_us: int, host: str
) -> tuple[Decision, State]:
    """Decide one event for one profile on `host`; the first clause that says no decides: state,
    on, hops, run_on, where, event (was it handled?), debounce, and last of all shadow."""
    view = event.view() if rule.where is not None else {}
    miss = _match(rule, event, host, view) or _seen(event, state)
    if miss is None and rule.debounce is not None:
        miss, window = _debounce(rule.debounce, event, state.window, now_us)
        state = msgspec.structs.replace(state, window=window)
    if miss is None:
        miss = _mode(rule)
    why = miss or Miss(outcome="fire", clause="on", reason=f"listens to {event.topic}")
    if miss is None and rule.where is not None:
        why = _met(rule.where, view)
    decision = Decision(
        profile=rule.name,
        profile_hash=rule.hash,
        event_id=event.id,
        topic=event.topic,
        at_us=now_us,
        outcome=why.outcome,
        clause=why.clause,
        reason=why.reason,
        values=why.values,
        window=state.window,
    )
    return decision, state


def match(rule: Rule, event: Event, *, host: str) -> Miss | None:
    """The clauses that need nothing but the event and the rule; None when all let it through."""
    return _match(rule, event, host, event.view() if rule.where is not None else {})


def _match(rule: Rule, event: Event, host: str, view: dict[str, Any]) -> Miss | None:
    return (
        _enabled(rule)
        or _on(rule, event)
        or _hops(rule, event)
        or _host(rule, event, host)
        or _where(rule, view)
    )


def debounce_key(rule: Rule, event: Event) -> str:
    """The burst this event belongs to, as 32 hex digits; "" for a rule without debounce."""
    if rule.debounce is None:
        return ""
    view = event.view()
    values = [_field(view, path) for path in rule.debounce.key]
    return hashlib.sha256(msgspec.json.encode(values, order="deterministic")).hexdigest()[:32]


def topic_matches(pattern: str, topic: str) -> bool:
    """NATS wildcards: `*` is one token, a last `>` one or more."""
    return _pattern(pattern).fullmatch(topic) is not None


@functools.cache
def _pattern(pattern: str) -> re.Pattern[str]:
    tokens = [
        {"*": r"[^.]+", ">": r".+"}.get(token, re.escape(token)) for token in pattern.split(".")
    ]
    return re.compile(r"\.".join(tokens))


def _enabled(rule: Rule) -> Miss | None:
    if rule.state == "disabled":
        return Miss(outcome="suppressed", clause="state", reason="the profile is disabled")
    return None


def _on(rule: Rule, event: Event) -> Miss | None:
    if any(topic_matches(pattern, event.topic) for pattern in rule.on):
        return None
    return Miss(
        outcome="filtered",
        clause="on",
        reason=f"listens to {', '.join(rule.on)}, not to {event.topic}",
        values={"topic": event.topic},
    )


def _hops(rule: Rule, event: Event) -> Miss | None:
    if event.hops <= rule.max_hops:
        return None
    return Miss(
        outcome="suppressed",
        clause="hops",
        reason=f"the event is {event.hops} hops from its first cause, the limit is {rule.max_hops}",
        values={"hops": event.hops},
    )


def _host(rule: Rule, event: Event, host: str) -> Miss | None:
    if rule.run_on == "any":
        return None
    wanted = event.host if rule.run_on == "origin" else rule.run_on
    if host_token(wanted) == host_token(host):
        return None
    return Miss(
        outcome="suppressed",
        clause="run_on",
        reason=f"runs on {wanted}, and this is {host}",
        values={"host": event.host},
    )


def _where(rule: Rule, view: dict[str, Any]) -> Miss | None:
    if rule.where is None:
        return None
    variables = {"event": view, "vars": rule.vars, "host": view["host"]}
    try:
        met = rule.where.evaluate(variables)
    except ConditionError as error:
        return Miss(
            outcome="filtered",
            clause="where",
            reason=f"the condition cannot be answered: {error.reason}",
            values=_values(rule.where, view),
        )
    if met is True:
        return None
    return Miss(
        outcome="filtered",
        clause="where",
        reason=f"{rule.where.text} is {_shown(met)}",
        values=_values(rule.where, view),
    )


def _met(where: Expression, view: dict[str, Any]) -> Miss:
    return Miss(
        outcome="fire",
        clause="where",
        reason=f"{where.text} is true",
        values=_values(where, view),
    )


def _seen(event: Event, state: State) -> Miss | None:
    if not state.seen:
        return None
    return Miss(
        outcome="duplicate",
        clause="event",
        reason="this profile already has a run for this event",
        values={"id": event.id},
    )


def _debounce(
    rule: Debounce, event: Event, window: Window | None, now_us: int
) -> tuple[Miss | None, Window]:
    opened = Window(fired_us=now_us, fired_id=event.id, last_us=now_us)
    if window is None:
        return None, opened
    if window.fired_id == event.id:  # delivered again: the answer stays what it was
        return None, window
    if now_us - window.last_us >= rule.window_us:
        return None, opened
    if rule.max_wait_us is not None and now_us - window.fired_us >= rule.max_wait_us:
        return None, opened
    view = event.view()
    quiet_s = (now_us - window.last_us) / 1e6
    miss = Miss(
        outcome="debounced",
        clause="debounce",
        reason=f"{quiet_s:.3f} s after the last event of its burst, "
        f"the window is {rule.window_us / 1e6:g} s",
        values={path: _field(view, path) for path in rule.key},
    )
    return miss, msgspec.structs.replace(window, last_us=max(window.last_us, now_us))


def _mode(rule: Rule) -> Miss | None:
    if rule.state == "shadow":
        return Miss(
            outcome="suppressed", clause="state", reason="would have fired; the profile is shadow"
        )
    return None


def _shown(value: Any) -> str:
    text = "false" if value is False else repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


@functools.lru_cache(maxsize=4096)
def _paths(text: str) -> tuple[str, ...]:
    """The event's fields that a condition names; a method at the end of a path is no field."""
    found = re.findall(r"\bevent((?:\.\w+)+)(\()?", text)
    paths = (path.rpartition(".")[0] if call else path for path, call in found)
    return tuple(dict.fromkeys(path[1:] for path in paths if path))


def _values(where: Expression, view: dict[str, Any]) -> dict[str, Any]:
    return {f"event.{path}": _field(view, path) for path in _paths(where.text)}


def _field(view: dict[str, Any], path: str) -> Any:
    value: Any = view
    for name in path.removeprefix("event.").split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
