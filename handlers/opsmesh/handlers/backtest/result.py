"""What a backtest found, as plain data: counts by profile, day and outcome, and every firing."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

#: An outcome beside those of decisions: an event of a topic that the profile decides, but no event.
UNDECODABLE: Final = "undecodable"


class Firing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is kept of a decision that fires; `count` is the number of events that it is about."""

    at_us: int
    event_seq: int
    event_id: str
    topic: str
    host: str
    count: int


class Day(msgspec.Struct):
    """Events that a profile was shown on one day (UTC), and its decisions by outcome.

    A timer's decision is in `outcomes` only, on the day of its time.
    """

    events: int = 0
    outcomes: dict[str, int] = msgspec.field(default_factory=dict)


class ProfileResult(msgspec.Struct, kw_only=True):
    """What one profile would have done."""

    profile: str
    hash: str
    #: By date, `2026-11-23`.
    days: dict[str, Day] = msgspec.field(default_factory=dict)
    #: By time within each host.
    firings: list[Firing] = msgspec.field(default_factory=list)
    #: Waits that had not ended at the end of the period.
    open: int = 0
    #: Events that hosts other than the asked one would have decided.
    elsewhere: int = 0

    @property
    def events(self) -> int:
        """Events that it was shown."""
        return sum(day.events for day in self.days.values())

    @property
    def outcomes(self) -> dict[str, int]:
        """Decisions by outcome."""
        found: Counter[str] = Counter()
        for day in self.days.values():
            found.update(day.outcomes)
        return dict(found)


class Result(msgspec.Struct, kw_only=True):
    """Every profile's part, in the order in which they were given.

    `messages` is what was read; `undecodable` what has no topic, so that no profile can be named.
    """

    profiles: list[ProfileResult]
    messages: int = 0
    undecodable: int = 0
