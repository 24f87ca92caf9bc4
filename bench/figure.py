"""A figure: what was measured in every round, plain nats-py beside it, and the target.

The one rule: rounds are interleaved (ours, plain, ours, plain, …), so that what else the machine
does meets both sides. The ratio of a round is therefore worth more than either of its numbers.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal


class FigureError(Exception):
    """A figure that cannot be measured here; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A limit on our median, or on its ratio to plain nats-py."""

    of: Literal["ratio", "value"]
    at: Literal["least", "most"]
    limit: float

    def met_by(self, value: float) -> bool:
        """Whether the value keeps it."""
        return value >= self.limit if self.at == "least" else value <= self.limit


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the table: a number for each round, of ours and of what it is compared with."""

    name: str
    what: str
    unit: str
    ours: Sequence[float]
    #: What stands beside it; "" where nothing comparable exists.
    beside: str = ""
    plain: Sequence[float] = ()
    target: Target | None = None
    #: False: less was measured than the target is for, so that it can be missed, but not met.
    whole: bool = True
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """Ours by plain, round by round; empty where nothing stands beside it."""
        return [ours / plain for ours, plain in zip(self.ours, self.plain, strict=False) if plain]

    @property
    def ratio(self) -> float | None:
        """The ratio of the medians."""
        return median(self.ours) / median(self.plain) if self.plain else None

    @property
    def met(self) -> bool | None:
        """Whether the medians keep the target; None without one, and where it cannot be said."""
        value = self.ratio
        if self.target is not None and self.target.of == "value":
            value = median(self.ours)
        if self.target is None or value is None:
            return None
        met = self.target.met_by(value)
        return met if self.whole or not met else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the numbers of every round."""
        plain = target = ratio = None
        if self.plain:
            plain = {"what": self.beside, **_series(self.plain)}
            ratio = {**_series(self.ratios), "of_medians": self.ratio}
        if self.target is not None:
            target = {
                "of": self.target.of,
                f"at_{self.target.at}": self.target.limit,
                "met": self.met,
            }
        return {
            "name": self.name,
            "what": self.what,
            "unit": self.unit,
            "ours": _series(self.ours),
            "plain": plain,
            "ratio": ratio,
            "target": target,
            "details": self.details,
        }


def _series(values: Sequence[float]) -> dict[str, Any]:
    return {
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "rounds": list(values),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0.99) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


#: Measures once; the argument is the number of the round, from 0.
Side = Callable[[int], Awaitable[float]]


async def alternate(rounds: int, *sides: Side) -> list[list[float]]:
    """The numbers of each side, measured in turn, round after round."""
    numbers: list[list[float]] = [[] for _ in sides]
    for n in range(rounds):
        for side, found in zip(sides, numbers, strict=True):
            gc.collect()  # what one side has left behind is not collected at the other's expense
            found.append(await side(n))
    return numbers
