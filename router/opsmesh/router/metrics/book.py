"""Figures that a process counts: plain numbers in memory, told when somebody asks.

The one rule: counting costs a look into a dictionary, and no library; making text of it is the
business of the process that is asked for it. Every figure has a bound of series, so that nothing
that comes from outside can make it grow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

#: Series of one figure at most; whatever comes beyond is counted under OTHER.
MAX_SERIES: Final = 500
OTHER: Final = "other"
#: Upper ends of the buckets of a time, in seconds: from a quarter of a millisecond to a minute.
SECONDS: Final = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)


class Series(msgspec.Struct, frozen=True, array_like=True):
    """One line of a figure. A histogram's `value` is the sum, and `counts` has one number for each
    bucket and one for what lies above; they are not added up."""

    labels: Labels
    value: float
    counts: tuple[int, ...] = ()


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with all its series, as it goes from a component to whoever asks."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    buckets: tuple[float, ...] = ()
    series: Sequence[Series] = ()


class Counter:
    """Goes up. `known` are values of its labels that are there from the beginning, as 0: an alert
    on what has never happened needs them."""

    kind: Final = "counter"

    def __init__(self, name: str, help: str, *labels: str, known: Sequence[Labels] = ()) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._values: dict[Labels, float] = dict.fromkeys(known if labels else ((),), 0)

    def add(self, *labels: str, by: float = 1) -> None:
        """So many more."""
        try:
            self._values[labels] += by
        except KeyError:
            self._values[_bounded(labels, self._values, 0)] += by

    def figure(self) -> Figure:
        """As it is now."""
        series = [Series(labels, value) for labels, value in self._values.items()]
        return _figure(self, series)


class Histogram:
    """How long something took, in seconds."""

    kind: Final = "histogram"

    def __init__(
        self, name: str, help: str, *labels: str, buckets: tuple[float, ...] = SECONDS
    ) -> None:
        self.name, self.help, self.labels, self.buckets = name, help, labels, buckets
        self._sums: dict[Labels, float] = {}
        self._counts: dict[Labels, list[int]] = {}
        if not labels:
            self._begin(())

    def _begin(self, labels: Labels) -> Labels:
        labels = _bounded(labels, self._sums, 0.0)
        self._counts.setdefault(labels, [0] * (len(self.buckets) + 1))
        return labels

    def observe(self, seconds: float, *labels: str) -> None:
        """One more that took so long."""
        if labels not in self._sums:
            labels = self._begin(labels)
        self._sums[labels] += seconds
        self._counts[labels][bisect_left(self.buckets, seconds)] += 1

    def figure(self) -> Figure:
        """As it is now."""
        series = [Series(k, self._sums[k], tuple(v)) for k, v in self._counts.items()]
        return _figure(self, series, self.buckets)


class Gauge:
    """A value that goes up and down: set, or read from whoever has it when somebody asks."""

    kind: Final = "gauge"

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help, labels
        self._values: dict[Labels, float] = {}
        self._read: Callable[[], float | Mapping[Labels, float]] | None = None

    def set(self, value: float, *labels: str) -> None:
        """What it is now."""
        if labels not in self._values:
            labels = _bounded(labels, self._values, 0.0)
        self._values[labels] = value

    def read_from(self, read: Callable[[], float | Mapping[Labels, float]]) -> None:
        """Ask `read` for it each time; the last one who says so is asked."""
        self._read = read

    def figure(self) -> Figure:
        """As it is now."""
        values: Mapping[Labels, float] = self._values
        if self._read is not None:
            read = self._read()
            values = read if isinstance(read, Mapping) else {(): read}
        return _figure(self, [Series(labels, value) for labels, value in values.items()])


class Book:
    """The figures of a process, each name once."""

    def __init__(self, *figures: Counter | Gauge | Histogram) -> None:
        self.figures = figures

    def report(self) -> list[Figure]:
        """All of them, as they are now."""
        return [figure.figure() for figure in self.figures]


def _bounded(labels: Labels, known: dict[Labels, Any], nothing: float) -> Labels:
    if len(known) >= MAX_SERIES and labels not in known:
        labels = (OTHER,) * len(labels)
    known.setdefault(labels, nothing)
    return labels


def _figure(
    of: Counter | Gauge | Histogram, series: Sequence[Series], buckets: tuple[float, ...] = ()
) -> Figure:
    return Figure(
        name=of.name,
        kind=of.kind,
        help=of.help,
        labels=of.labels,
        buckets=buckets,
        series=series,
    )
