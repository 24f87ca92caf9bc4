"""What the clauses of a profile that decide may say: their keys, types, limits and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from opsmesh.handlers.actions.spec import Duration, Spec
from opsmesh.router.conditions import Expression
from opsmesh.router.stages import (
    COLLECT_MAX,
    DEFAULT_KEY,
    Collect,
    Correlate,
    Debounce,
    Limits,
    Throttle,
    Unless,
)
from opsmesh.router.topic_patterns import checked, overlap
from opsmesh.schemas.envelope import FIELDS
from opsmesh.schemas.nearest import did_you_mean

#: What a condition may name, beside `last("topic")`.
WHERE_NAMES: Final = ("event", "host", "now", "vars")
#: Events that a window may hold, and firings that a throttle may count.
MOST: Final = 1000

_PATH = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*", re.ASCII)


def listed(value: Any) -> Any:
    """One text is a list of one."""
    return [value] if isinstance(value, str) else value


def _disjoint(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for i, one in enumerate(patterns):
        for other in patterns[:i]:
            if overlap(one, other):
                raise ValueError(f"{other!r} and {one!r} match the same topics; keep the wider one")
    return patterns


def _condition(value: str) -> str:
    expression = Expression(value)
    for name in sorted(expression.names.difference(WHERE_NAMES)):
        known = did_you_mean(name, WHERE_NAMES) or f"; there are {', '.join(WHERE_NAMES)}"
        raise ValueError(f"unknown name {name!r}{known}")
    return value


def _field(value: str) -> str:
    path = value.removeprefix("event.")
    name = path.partition(".")[0]
    if not _PATH.fullmatch(path):
        raise ValueError(f"{value!r} is no path of fields, like payload.unit")
    if name not in FIELDS:
        raise ValueError(f"an event has no field {name!r}{did_you_mean(name, FIELDS)}")
    return path


#: Topics of a profile or a clause.
Patterns = Annotated[
    tuple[Annotated[str, AfterValidator(checked)], ...],
    BeforeValidator(listed),
    Field(min_length=1, description="Topics; * is one token, a last > one or more."),
    AfterValidator(_disjoint),
]
#: A condition in CEL.
Condition = Annotated[str, AfterValidator(_condition)]
#: Fields of the event whose values make a key.
Key = Annotated[
    tuple[Annotated[str, AfterValidator(_field)], ...],
    BeforeValidator(listed),
    Field(description="Fields of the event, like payload.unit, that are told apart."),
]
#: A duration that is not zero.
Span = Annotated[Duration, Field(gt=0)]


class DebounceSpec(Spec):
    """One run a burst; a burst ends after `window` without an event, or after `max_wait`."""

    window: Span
    max_wait: Span | None = None
    key: Key = DEFAULT_KEY
    edge: Annotated[
        Literal["leading", "trailing"],
        Field(description="Run for the first event at once, or for the last when it is quiet."),
    ] = "leading"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_wait is not None and self.max_wait < self.window:
            raise ValueError("max_wait is shorter than window")
        return self

    def stage(self) -> Debounce:
        """What the engine decides with."""
        return Debounce(
            window_us=_us(self.window),
            max_wait_us=None if self.max_wait is None else _us(self.max_wait),
            key=self.key,
            edge=self.edge,
        )


class ThrottleSpec(Spec):
    """At most so many in any time of this length; what is beyond is dropped."""

    at_most: Annotated[int, Field(ge=1, le=MOST)]
    per: Span
    key: Key = ()

    def stage(self) -> Throttle:
        """What the engine decides with."""
        return Throttle(at_most=self.at_most, per_us=_us(self.per), key=self.key)


class CollectSpec(Spec):
    """One run for all events of `window`, or for `max` of them; actions see them as `events`."""

    window: Span
    max: Annotated[int, Field(ge=2, le=MOST)] = COLLECT_MAX
    key: Key = ()

    def stage(self) -> Collect:
        """What the engine decides with."""
        return Collect(window_us=_us(self.window), max=self.max, key=self.key)


class CorrelateSpec(Spec):
    """Run when an event of every topic in `on` has come `within` a time, with the same key."""

    within: Span
    key: Key = ("host",)
    ordered: Annotated[bool, Field(description="Only in the order in which `on` has them.")] = False

    def stage(self, on: tuple[str, ...]) -> Correlate:
        """What the engine decides with."""
        return Correlate(parts=on, within_us=_us(self.within), key=self.key, ordered=self.ordered)


class UnlessSpec(Spec):
    """Run when none of these events has come `within` a time after the profile's own."""

    on: Patterns
    within: Span
    key: Key = ("host",)
    where: Condition | None = None

    def stage(self) -> Unless:
        """What the engine decides with."""
        return Unless(on=self.on, within_us=_us(self.within), key=self.key)


class LimitsSpec(Spec):
    """The last fence: at most so many runs of the whole profile in any time of this length."""

    runs: Annotated[int, Field(ge=1, le=MOST)]
    per: Span

    def stage(self) -> Limits:
        """What the engine decides with."""
        return Limits(at_most=self.runs, per_us=_us(self.per))


def overlapping(one: Iterable[str], other: Iterable[str]) -> tuple[str, str] | None:
    """A pattern of each that cover the same topic; None when there are none."""
    others = tuple(other)
    return next(((a, b) for a in one for b in others if overlap(a, b)), None)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
