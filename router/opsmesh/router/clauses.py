"""The clauses of a rule that need nothing but the event and the rule's text.

Each answers None when it lets the event through, and otherwise says why not with the values that it
read. `CLAUSES` is the order in which they are asked.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from opsmesh.router.conditions import ConditionError, Expression, Last
from opsmesh.router.rule import Rule
from opsmesh.router.stages import Outcome
from opsmesh.router.topic_patterns import listens
from opsmesh.schemas.envelope import Event, host_token


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a clause says of an event: the outcome, the reason in words, and the values it read."""

    outcome: Outcome
    clause: str
    reason: str
    values: dict[str, Any] = msgspec.field(default_factory=dict)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One event before one rule: where, when, and the newest events that `last(…)` stands for."""

    event: Event
    #: The event as plain values.
    view: dict[str, Any]
    host: str
    now_us: int
    last: Mapping[Last, Event]


def state(rule: Rule, seen: Seen) -> Said | None:
    """A disabled profile decides nothing else."""
    if rule.state == "disabled":
        return Said(outcome="suppressed", clause="state", reason="the profile is disabled")
    return None


def run_on(rule: Rule, seen: Seen) -> Said | None:
    """The right host."""
    if rule.run_on == "any":
        return None
    wanted = seen.event.host if rule.run_on == "origin" else rule.run_on
    if _token(wanted) == _token(seen.host):
        return None
    return Said(
        outcome="suppressed",
        clause="run_on",
        reason=f"runs on {wanted}, and this is {seen.host}",
        values={"host": seen.event.host},
    )


def on(rule: Rule, seen: Seen) -> Said | None:
    """A topic it listens to."""
    topic = seen.event.topic
    if listens(rule.on, topic):
        return None
    return Said(
        outcome="filtered",
        clause="on",
        reason=f"listens to {', '.join(rule.on)}, not to {topic}",
        values={"topic": topic},
    )


def hops(rule: Rule, seen: Seen) -> Said | None:
    """Not too far from the first cause."""
    count = seen.event.hops
    if count <= rule.max_hops:
        return None
    return Said(
        outcome="suppressed",
        clause="hops",
        reason=f"the event is {count} hops from its first cause, the limit is {rule.max_hops}",
        values={"hops": count},
    )


def where(rule: Rule, seen: Seen) -> Said | None:
    """The profile's condition."""
    if rule.where is None:
        return None
    return unmet(rule.where, rule, seen)


#: In the order in which they are asked; the first that says no decides.
CLAUSES: Final = (state, run_on, on, hops, where)


def unmet(condition: Expression, rule: Rule, seen: Seen) -> Said | None:
    """None when the condition is true."""
    if condition.certainly(seen.event):
        return None
    variables = {"event": seen.view, "vars": rule.vars, "host": seen.view["host"]}
    if "now" in condition.names:
        variables["now"] = datetime.fromtimestamp(seen.now_us / 1e6, UTC)
    last = {one: seen.last[one].view() for one in condition.last if one in seen.last}
    try:
        met = condition.evaluate(variables, last)
    except ConditionError as error:
        reason = f"the condition cannot be answered: {error.reason}"
    else:
        if met is True:
            return None
        reason = f"{condition.text} is {_shown(met)}"
    return Said(outcome="filtered", clause="where", reason=reason, values=read(condition, seen))


def read(condition: Expression, seen: Seen) -> dict[str, Any]:
    """The values that a condition reads, by their names in its text."""
    values = {f"event.{path}": field(seen.view, path) for path in _paths(condition.text)}
    if "now" in condition.names:
        values["now"] = datetime.fromtimestamp(seen.now_us / 1e6, UTC)
    for one, paths in condition.paths().items():
        if isinstance(one, Last):
            event = seen.last.get(one)
            view = event.view() if event else None
            for path in paths or ((),):
                values[".".join((one.call, *path))] = _inner(view, path)
    return values


def field(view: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, `event.` before it or not; None where there is none."""
    return _inner(view, tuple(path.removeprefix("event.").split(".")))


def _inner(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _shown(value: Any) -> str:
    text = "false" if value is False else repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


@functools.lru_cache(maxsize=4096)
def _paths(text: str) -> tuple[str, ...]:
    """The event's fields that a condition names; a method at the end of a path is no field."""
    found = re.findall(r"\bevent((?:\.\w+)+)(\()?", text)
    paths = (path.rpartition(".")[0] if call else path for path, call in found)
    return tuple(dict.fromkeys(path[1:] for path in paths if path))


_token = functools.lru_cache(maxsize=256)(host_token)
