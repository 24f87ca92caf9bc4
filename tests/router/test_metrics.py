"""Figures in memory, and how a component tells them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.conftest import run

from opsmesh.router.client import with_address
from opsmesh.router.metrics import telling
from opsmesh.router.metrics.book import MAX_SERIES, OTHER, Book, Counter, Gauge, Histogram, Series


def test_a_counter_begins_at_nothing() -> None:
    """What has never happened is told as 0, where it is known that it may."""
    plain = Counter("opsmesh_a_events_total", "A.")
    known = Counter("opsmesh_b_events_total", "B.", "result", known=[("lost",)])
    assert list(plain.figure().series) == [Series((), 0)]
    assert list(known.figure().series) == [Series(("lost",), 0)]


def test_a_counter_adds() -> None:
    """Each value of the labels is counted by itself."""
    one = Counter("opsmesh_a_events_total", "A.", "result")
    one.add("kept")
    one.add("lost", by=2)
    one.add("kept")
    assert {s.labels: s.value for s in one.figure().series} == {("kept",): 2, ("lost",): 2}


def test_a_histogram_counts_each_time_once() -> None:
    """A time is in the first bucket that it is not above; a longer one is in the last of all."""
    one = Histogram("opsmesh_a_seconds", "A.", buckets=(0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        one.observe(seconds)
    (series,) = one.figure().series
    assert series.counts == (2, 1, 1)
    assert series.value == pytest.approx(7.65)


@pytest.mark.parametrize("kind", [Counter, Gauge, Histogram])
def test_no_figure_grows_without_end(kind: type[Counter | Gauge | Histogram]) -> None:
    """Beyond MAX_SERIES what is new is counted under one name, and what is known by its own."""
    one = kind("opsmesh_a_events_total", "A.", "topic")
    for number in range(MAX_SERIES + 50):
        _count(one, f"t{number}")
    _count(one, "t0")
    found = {series.labels for series in one.figure().series}
    assert len(found) == MAX_SERIES + 1
    assert {("t0",), (OTHER,)} <= found


def _count(one: Counter | Gauge | Histogram, label: str) -> None:
    if isinstance(one, Counter):
        one.add(label)
    elif isinstance(one, Gauge):
        one.set(1, label)
    else:
        one.observe(1, label)


def test_a_gauge_is_read_when_it_is_asked() -> None:
    """A gauge with somebody to ask tells what is true then."""
    held = [1, 2]
    one = Gauge("opsmesh_a_files", "A.")
    one.read_from(lambda: len(held))
    held.append(3)
    assert list(one.figure().series) == [Series((), 3)]


def test_components_are_told_apart(home: Path) -> None:
    """Whoever asks hears every component that tells, each under its own name."""

    async def body() -> None:
        one, two = Counter("opsmesh_a_events_total", "A."), Gauge("opsmesh_b_bytes", "B.")
        one.add(by=3)
        two.set(4)
        async with telling.told("agent", Book(one)), telling.told("handlers:hub", Book(two)):
            reports = {report.component: report for report in await telling.reports()}
        assert reports["agent"].figures == [one.figure()]
        assert reports["handlers:hub"].figures == [two.figure()]

    run(body())


def test_the_socket_is_its_owners(home: Path) -> None:
    """Nobody else may ask, and nothing is left behind."""

    async def body() -> None:
        async with telling.told("agent", Book()):
            (path,) = telling.folder().iterdir()
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o777 == 0o700
        assert list(telling.folder().iterdir()) == []

    run(body())


def test_what_a_killed_component_left_is_passed_over(home: Path) -> None:
    """A socket that nobody listens at is no component, and its place can be taken."""
    telling.folder().mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left:
        with_address(str(telling.folder() / "agent.sock"), left.bind)

    async def body() -> None:
        assert await telling.reports() == []
        async with telling.told("agent", Book()):
            assert [report.component for report in await telling.reports()] == ["agent"]

    run(body())


def test_a_component_works_without_its_socket(home: Path) -> None:
    """Where the socket cannot be made the component goes on all the same."""
    telling.folder().parent.mkdir(parents=True, exist_ok=True)
    telling.folder().write_text("not a folder")
    went_on = []

    async def body() -> None:
        async with telling.told("agent", Book()):
            went_on.append(await telling.reports())

    run(body())
    assert went_on == [[]]
