"""Backtests: what profiles would have decided about archived events."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from tests.handlers.backtests import (
    BURSTS,
    DAY,
    MORNING,
    archived,
    message,
    profiles,
    series,
)

from opsmesh.handlers.backtest.backtest import Backtest, backtest
from opsmesh.handlers.backtest.jobs import over_archive
from opsmesh.handlers.backtest.result import ProfileResult
from opsmesh.handlers.backtest.source import Source, Stored
from opsmesh.handlers.evidence import reader
from opsmesh.router.decide import Decision
from opsmesh.router.decider import Decider
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import decode


def fired(tested: ProfileResult) -> list[tuple[str, float, str]]:
    """Event, seconds and host of every firing."""
    return [(f.event_id, (f.at_us - MORNING) / 1e6, f.host) for f in tested.firings]


def test_counts() -> None:
    """Every event that a profile is shown has one outcome, and every firing its event and time."""
    leading, trailing, some, none = profiles(
        """
        leading: {on: a.b, debounce: {window: 10s}}
        trailing: {on: a.b, debounce: {window: 10s, edge: trailing}}
        some: {on: a.c, where: event.payload.n > 1, throttle: {at_most: 2, per: 1h}}
        none: {on: a.d}
        """
    )
    result = backtest([leading, trailing, some, none], BURSTS, host=None)
    assert result.messages == 12
    first, second, third, fourth = result.profiles
    assert first.outcomes == {"fire": 2, "debounced": 4}
    assert fired(first) == [("event-1", 0, "dev"), ("event-5", 60, "dev")]
    assert second.outcomes == {"debounced": 6, "fire": 2}
    assert fired(second) == [("event-4", 13, "dev"), ("event-6", 71, "dev")]
    assert third.outcomes == {"filtered": 2, "fire": 2, "throttled": 1}
    assert (third.events, fourth.events, fourth.outcomes) == (5, 0, {})


@pytest.mark.parametrize(("until_s", "fires", "open_"), [(None, 0, 1), (8, 0, 1), (9, 1, 0)])
def test_end(until_s: float | None, fires: int, open_: int) -> None:
    """Timers fire up to the end of the period, the last event's time unless told; what waits then
    is open."""
    [late] = profiles("late: {on: a.b, unless: {on: a.c, within: 9s}}")
    until_us = None if until_s is None else MORNING + round(until_s * 1e6)
    result = backtest(
        [late], series((0, "a.b"), (1, "x.y")), host=None, until_us=until_us
    ).profiles[0]
    assert (len(result.firings), result.open) == (fires, open_)


def test_leading_windows_are_not_open() -> None:
    """A window that waits for nothing is not open."""
    [one] = profiles("one: {on: a.b, debounce: {window: 1h}, throttle: {at_most: 1, per: 1h}}")
    assert backtest([one], series((0, "a.b")), host=None).profiles[0].open == 0


def test_days() -> None:
    """Decisions are counted on their own UTC day, a timer's on the day of its time."""
    [late] = profiles("late: {on: a.b, unless: {on: a.c, within: 1d}}")
    result = backtest([late], series((0, "a.b")), host=None, until_us=MORNING + 2 * DAY).profiles[0]
    assert {day: (found.events, found.outcomes) for day, found in result.days.items()} == {
        "2026-11-23": (1, {"waiting": 1}),
        "2026-11-24": (0, {"fire": 1}),
    }


@pytest.mark.parametrize("state", ["shadow", "disabled"])
def test_states(state: str) -> None:
    """A profile in shadow or disabled is decided as enabled."""
    [one] = profiles(f"one: {{on: a.b, state: {state}}}")
    assert backtest([one], series((0, "a.b")), host=None).profiles[0].outcomes == {"fire": 1}


def test_kept_decisions_are_those_of_a_decider() -> None:
    """The kept decisions are, byte by byte, what a decider makes of the same events."""
    [one] = profiles(
        "one: {on: a.b, where: 'last(\"a.c\") == null', debounce: {window: 2s, edge: trailing}}"
    )
    kept: list[Decision] = []
    backtest([one], BURSTS, host="dev", keep=kept.append)
    decider = Decider(one.rule, host="dev")
    expected: list[Decision] = []
    for stored in BURSTS:
        expected += decider.advance(stored.time_us)
        decision = decider.decide(decode(stored.data), seq=stored.seq, stored_us=stored.time_us)
        expected += [decision] if decision is not None else []
    expected += decider.advance(BURSTS[-1].time_us)
    assert [decision.encode() for decision in kept] == [one.encode() for one in expected]


def test_same_event_twice() -> None:
    """An event that is stored twice fires once."""
    [one] = profiles("one: {on: a.b}")
    stored = message(1, 0)
    again = Stored(EVENTS, 2, stored.time_us + DAY, stored.data)
    result = backtest([one], [stored, again], host=None).profiles[0]
    assert result.outcomes == {"fire": 1, "duplicate": 1}


HOSTS = series(
    (0, "a.b", {"host": "dev"}),
    (1, "a.b", {"host": "other"}),
    (2, "a.b", {"host": "Dev"}),
    (3, "a.b", {"host": "other"}),
)


@pytest.mark.parametrize(
    ("run_on", "host", "expected", "elsewhere"),
    [
        ("origin", None, [("event-1", "dev"), ("event-2", "other")], 0),
        ("origin", "other", [("event-2", "other")], 2),
        ("any", None, [("event-1", "dev")], 0),
        ("any", "third", [("event-1", "third")], 0),
        ("other", None, [("event-1", "other")], 0),
        ("other", "Other", [("event-1", "other")], 0),
        ("other", "dev", [], 0),
    ],
)
def test_hosts(
    run_on: str, host: str | None, expected: list[tuple[str, str]], elsewhere: int
) -> None:
    """Each origin host has windows of its own, one host's profile sees everybody's events, and
    `any` is one for all."""
    [one] = profiles(f"one: {{on: a.b, run_on: {run_on}, debounce: {{window: 1h, key: []}}}}")
    result = backtest([one], HOSTS, host=host).profiles[0]
    assert [(f.event_id, f.host) for f in result.firings] == expected
    assert result.elsewhere == elsewhere


def test_last_of_any_host() -> None:
    """Another host's newest event is known where a condition asks for anybody's, also on a host
    that is heard of later."""
    [anyone, own] = profiles(
        """
        anyone: {on: a.b, where: 'last("a.c", "any") != null'}
        own: {on: a.b, where: 'last("a.c") != null'}
        """
    )
    events = series(
        (0, "a.b", {"host": "dev"}),
        (1, "a.c", {"host": "other"}),
        (2, "a.b", {"host": "dev"}),
        (3, "a.b", {"host": "third"}),
        (4, "a.b", {"host": "other"}),
    )
    first, second = backtest([anyone, own], events, host=None).profiles
    assert [f.event_id for f in first.firings] == ["event-3", "event-4", "event-5"]
    assert [f.event_id for f in second.firings] == ["event-5"]
    assert [f.event_id for f in backtest([anyone], events, host="dev").profiles[0].firings] == [
        "event-3"
    ]


def test_undecodable(tmp_path: Path) -> None:
    """What is no event is counted where its topic is heard, or for nobody, and stops nothing."""
    bad = [
        b'{"topic":"a.b"}',
        b'{"topic":"a.c"}',
        b'{"topic":5}',
        b"no json",
        b"",
        b'{"topic":"a.b",\n"ts_utc":1}',
        b"[" * 5000,
        b'{"x":1}',
    ]
    good = message(len(bad) + 1, 1)
    messages = [Stored(EVENTS, seq, MORNING, data) for seq, data in enumerate(bad, 1)]
    [one] = profiles("one: {on: a.b}")
    result = backtest([one], [*messages, good], host=None)
    assert result.profiles[0].outcomes == {"undecodable": 2, "fire": 1}
    assert (result.messages, result.undecodable) == (9, 5)
    folder = archived(tmp_path / "archive", [*messages, good])
    assert over_archive(folder, [one]) == result


def test_damaged_archive(tmp_path: Path) -> None:
    """Lines that are none are passed over."""
    folder = archived(tmp_path / "archive", BURSTS)
    [one] = profiles("one: {on: a.b}")
    whole = over_archive(folder, [one])
    path = Source(folder)._segments[0].path
    raws = path.read_bytes().splitlines(keepends=True)
    junk = [b"\0\0\n", b"{}\n", b"\xff\xfe\n", raws[0][:40] + b"\n"]
    path.write_bytes(b"".join([*junk, *raws, raws[0][:-30]]))
    assert over_archive(folder, [one]) == whole


def test_period(tmp_path: Path) -> None:
    """Only what was stored from `since` on and before `until` is decided."""
    folder = archived(tmp_path / "archive", [message(n + 1, n * 43_200) for n in range(8)])
    [one] = profiles("one: {on: a.b}")
    since_us, until_us = MORNING + DAY, MORNING + 2 * DAY
    result = over_archive(folder, [one], since_us=since_us, until_us=until_us)
    assert result.messages == 2
    assert [f.event_id for f in result.profiles[0].firings] == ["event-3", "event-4"]


MANY = """
a: {on: a.b, debounce: {window: 10s}}
b: {on: a.c, where: event.payload.n > 1, throttle: {at_most: 2, per: 1h}}
c: {on: "a.>", collect: {window: 20s}, run_on: any}
d: {on: a.b, unless: {on: a.c, where: event.payload.n == 3, within: 1m, key: workspace}}
e: {on: [a.b, a.c], correlate: {within: 1m}}
f: {on: a.d, where: 'last("a.c") != null && last("a.c").payload.n > 1', vars: {x: 1}}
"""


def test_processes(tmp_path: Path) -> None:
    """Two processes find what one finds, and tell how far they are."""
    wide = [
        message(seq, seq * 7, ("a.b", "a.c", "a.d", "x.y")[seq * 7 % 11 % 4], n=seq % 5)
        for seq in range(1, 400)
    ]
    folder = archived(tmp_path / "archive", wide)
    told: list[tuple[int, int]] = []
    one = over_archive(folder, profiles(MANY))
    two = over_archive(
        folder, profiles(MANY), jobs=2, progress=lambda done, total: told.append((done, total))
    )
    assert one == two
    assert all(tested.firings for tested in one.profiles)
    assert told[-1][0] == told[-1][1] == 2 * Source(folder).size
    assert one == backtest(profiles(MANY), wide, host=None)


def test_interrupted(tmp_path: Path) -> None:
    """An interrupt while processes work ends them, and is passed on."""
    folder = archived(tmp_path / "archive", BURSTS)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        over_archive(folder, profiles(MANY), jobs=2, progress=interrupt)
    assert multiprocessing.active_children() == []


def test_source_skips_what_nobody_wants(tmp_path: Path) -> None:
    """Only wanted topics are read, and all messages are counted."""
    folder = archived(tmp_path / "archive", BURSTS)
    source = Source(folder)
    assert [one.seq for one in source.read(lambda topic: topic == "a.c")] == [7, 8, 9, 10, 11]
    assert (source.messages, source.last_us) == (12, BURSTS[-1].time_us)
    assert list(source.read(lambda _: True)) == BURSTS


def test_source_is_the_reader(tmp_path: Path) -> None:
    """The source gives what the archive's reader gives, whatever the bytes are."""
    odd = [b"no json", b"", b'{"topic":"a.b",\n"x":1}', b'{ "topic": "\\u0061.b" , "\xc3\xa4":1}']
    gap = [Stored(EVENTS, 3 * seq, MORNING + seq * DAY, data) for seq, data in enumerate(odd, 1)]
    folder = archived(tmp_path / "archive", gap)
    middle = MORNING + 2 * DAY
    for since_us, until_us in ((None, None), (middle, None), (None, middle)):
        found = reader.read(folder, since_us=since_us, until_us=until_us)
        read = [(one.seq, one.time_us, one.data) for one in found]
        source = Source(folder, since_us=since_us, until_us=until_us)
        assert [(one.seq, one.time_us, one.data) for one in source.read(lambda _: True)] == read
        assert source.messages == len(read) > 0


def test_windows_are_not_kept_for_ever() -> None:
    """A backtest remembers windows of the present, not of the whole period."""
    [one] = profiles("one: {on: a.b, debounce: {window: 1s, key: payload.n}}")
    engine = Backtest([one.rule], host=None)
    for seq in range(1, 2000):
        engine.take(message(seq, seq * 10, n=seq))
    [decider] = engine._lanes[0]._deciders.values()
    assert not decider.changed
    assert engine.end().profiles[0].outcomes == {"fire": 1999}
