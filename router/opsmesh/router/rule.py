"""A rule: the part of a profile that decides, as data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal

import msgspec

from opsmesh.router.conditions import Expression, Last
from opsmesh.router.stages import Collect, Correlate, Debounce, Limits, Stage, Throttle, Unless
from opsmesh.router.topic_patterns import disjoint

ProfileState = Literal["enabled", "shadow", "disabled"]

#: How often an event may have caused another before a profile no longer acts on it.
DEFAULT_MAX_HOPS: Final = 8


class Rule(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """When a profile fires. An event passes `state`, `run_on`, `on`, `hops` and `where`, and then
    the stages, in the order in which they stand here."""

    name: str
    hash: str
    on: tuple[str, ...]
    where: Expression | None = None
    run_on: str = "origin"
    state: ProfileState = "enabled"
    max_hops: int = DEFAULT_MAX_HOPS
    vars: Mapping[str, Any] = msgspec.field(default_factory=dict)
    unless: Unless | None = None
    #: A condition on the events that end the wait of `unless`.
    unless_where: Expression | None = None
    correlate: Correlate | None = None
    debounce: Debounce | None = None
    collect: Collect | None = None
    throttle: Throttle | None = None
    limits: Limits | None = None

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What remembers, in the order of an event's way."""
        all_stages = (
            *(self.unless, self.correlate, self.debounce),
            *(self.collect, self.throttle, self.limits),
        )
        return tuple(stage for stage in all_stages if stage is not None)

    def without_memory(self) -> Rule:
        """The same without its stages: it decides every event by itself."""
        return msgspec.structs.replace(
            self,
            unless=None,
            correlate=None,
            debounce=None,
            collect=None,
            throttle=None,
            limits=None,
        )

    @cached_property
    def last(self) -> tuple[Last, ...]:
        """Every `last(…)` that its conditions read."""
        found = (e.last for e in (self.where, self.unless_where) if e is not None)
        return tuple(sorted({one for some in found for one in some}))

    @cached_property
    def decided(self) -> tuple[str, ...]:
        """Patterns of the topics that it has a decision for."""
        return (*self.on, *(self.unless.on if self.unless else ()))

    @cached_property
    def listens(self) -> tuple[str, ...]:
        """Disjoint patterns of the topics that it must be shown."""
        return disjoint([*self.decided, *(one.topic for one in self.last)])
