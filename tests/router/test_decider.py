"""A decider over a stream: timers in their order, and the same bytes however it is interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.router.decisions import (
    HOST,
    KEY,
    S,
    Stored,
    carried,
    encoded,
    event,
    expression,
    forget_ended,
    play,
    rule,
    rules,
    stream,
    streams,
    word,
)

from opsmesh.router import decider as decider_module
from opsmesh.router.decide import Decision, Newest, decide, due
from opsmesh.router.decider import Decider
from opsmesh.router.rule import Rule
from opsmesh.router.stages import Collect, Debounce, Limits, Throttle, Unless, Window

#: After every timer of a generated rule.
END_US = 100_000
TRAILING = Debounce(window_us=30 * S, key=KEY, edge="trailing")
thorough = settings(max_examples=100)


def whole(rule: Rule, given: Sequence[Stored]) -> list[Decision]:
    return play(Decider(rule, host=HOST), given, until_us=END_US)


def test_timers_come_in_the_order_of_time_and_name() -> None:
    """Windows that are due at one time are decided in the order of their names."""
    decider = Decider(rule(debounce=TRAILING), host=HOST)
    play(decider, stream("a/w@0 a/x@1 a/y@1 a/z@1"))
    timers = list(decider.advance(31 * S))
    assert [d.at_us for d in timers] == [30 * S, 31 * S, 31 * S, 31 * S]
    names = [d.timer or "" for d in timers[1:]]
    assert names == sorted(names)
    assert decider.next_due() is None


def test_an_event_at_the_due_time_comes_after_the_timer() -> None:
    """A timer that is due when an event is stored is decided before it, not a moment earlier."""
    decider = Decider(rule(debounce=TRAILING), host=HOST)
    play(decider, stream("a@0"))
    assert decider.next_due() == 30 * S
    assert list(decider.advance(30 * S - 1)) == []
    again = [Stored(event("2", payload={"k": ""}), 2, 30 * S)]
    assert [word(d) for d in play(decider, again)] == ["30!fire(1)", "30=debounced(2)"]
    assert decider.next_due() == 60 * S


def test_a_timer_that_was_put_off_comes_once() -> None:
    """Only the newest time of a window counts."""
    decider = Decider(rule(debounce=TRAILING), host=HOST)
    play(decider, stream("a@0 a@10 a@20"))
    assert decider.next_due() == 50 * S
    assert [word(d) for d in decider.advance(1000 * S)] == ["50!fire(3)"]


def test_time_does_not_go_back_before_a_timer() -> None:
    """What comes after a timer was decided comes later, though the broker's clock was set back."""
    decider = Decider(rule(debounce=TRAILING), host=HOST)
    play(decider, stream("a@0"), until_us=30 * S)
    [decision] = play(decider, [Stored(event("2"), 2, 20 * S)])
    assert (decision.at_us, decider.latest_us, decider.next_due()) == (30 * S, 30 * S, 60 * S)


def test_events_that_are_not_for_the_rule() -> None:
    """What only `last(…)` or nothing reads is no decision."""
    where = expression('last("t.b") != null')
    decider = Decider(rule(where=where), host=HOST)
    assert [word(d) for d in play(decider, stream("a@0 b@1 q@2 a@3"))] == [
        "0=filtered(1)",
        "3=fire(4)",
    ]


def test_last_is_of_this_host_or_of_any() -> None:
    """`last(topic)` knows events of the deciding host, `last(topic, "any")` of every host."""
    text = 'last("t.b") == null && last("t.b", "any").payload.n == 2'
    decider = Decider(rule(where=expression(text)), host=HOST)
    there = event("1", "t.b", host="desk", payload={"n": 2})
    given = [Stored(there, 1, 0), Stored(event("2"), 2, 1)]
    [decision] = play(decider, given)
    assert decision.fires
    assert decision.last == {'last("t.b")': None, 'last("t.b", "any")': 1}
    here = event("3", "t.b", host="Laptop", payload={"n": 2})
    [decision] = play(decider, [Stored(here, 3, 2), Stored(event("4"), 4, 3)])
    assert not decision.fires
    assert decision.last == {'last("t.b")': 3, 'last("t.b", "any")': 3}


def test_an_event_is_not_its_own_last() -> None:
    """A condition that asks for the newest event of its own topic gets the one before."""
    decider = Decider(rule(where=expression('last("t.a") != null')), host=HOST)
    first, second = play(decider, stream("a@0 a@1"))
    assert (first.outcome, first.last) == ("filtered", {'last("t.a")': None})
    assert (second.outcome, second.last) == ("fire", {'last("t.a")': 1})


def test_changes_are_taken_once() -> None:
    """What changed is there to be written, a forgotten window as None, until it is taken."""
    decider = Decider(rule(debounce=TRAILING), host=HOST)
    assert not decider.changed
    play(decider, stream("a@0"))
    assert decider.changed
    [(name, window)] = decider.take_changes().items()
    assert decider.windows == {name: window}
    assert (decider.changed, decider.take_changes()) == (False, {})
    list(decider.advance(60 * S))
    assert decider.take_changes() == {name: None}


def test_many_keys_do_not_stay() -> None:
    """Windows that can be forgotten are, so that memory is bounded by what is alive."""
    decider = Decider(rule(throttle=Throttle(at_most=1, per_us=10, key=KEY)), host=HOST)
    given = [Stored(event(str(n), payload={"k": n}), n, n) for n in range(10_000)]
    play(decider, given)
    assert len(decider.windows) <= decider_module.SWEEP + 20


ADDED = rule(
    debounce=TRAILING,
    collect=Collect(window_us=5 * S),
    throttle=Throttle(at_most=1, per_us=100 * S, key=KEY),
)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    ("text", "new", "decided"),
    [
        # a stage between two: the later one is told by its name, not by its place
        (
            "a/x@0 a/y@10",
            ADDED,
            ["30!collecting(1)", "35!fire(1)", "40!collecting(2)", "45!fire(2)"],
        ),
        ("a@0", rule(throttle=Throttle(at_most=1, per_us=S)), []),
        ("a@0", rule(unless=Unless(on=("t.z",), within_us=S), debounce=TRAILING), ["30!fire(1)"]),
        (
            "a/x@0 a/y@10",
            rule(debounce=TRAILING, limits=Limits(at_most=1, per_us=100 * S)),
            ["30!fire(1)", "40!suppressed(2)"],
        ),
        ("a@0", rule(debounce=msgspec.structs.replace(TRAILING, edge="leading")), ["30!fire(1)"]),
    ],
)
def test_another_text_while_something_waits(
    text: str, new: Rule, decided: list[str], live: bool
) -> None:
    """What waits goes the way of the new text, live or after a restart; what it lacks is gone."""
    before = rule(debounce=TRAILING, throttle=Throttle(at_most=5, per_us=S, key=KEY))
    decider = Decider(before, host=HOST)
    play(decider, stream(text))
    decider.take_changes()
    if live:
        decider.exchange(new)
    else:
        decider = Decider(new, host=HOST, windows=carried(decider)[0])
    assert all(window is None for window in decider.take_changes().values())
    assert [word(d) for d in decider.advance(1000 * S)] == decided


def test_a_stage_that_is_gone_is_forgotten_for_good() -> None:
    """Windows that a new text has no stage for are among the changes that are written."""
    decider = Decider(rule(debounce=TRAILING), host=HOST)
    play(decider, stream("a@0"))
    windows = dict(decider.windows)
    decider.exchange(rule())
    assert (dict(decider.windows), decider.next_due()) == ({}, None)
    assert decider.take_changes() == dict.fromkeys(windows)
    restarted = Decider(rule(), host=HOST, windows=windows)
    assert (dict(restarted.windows), restarted.next_due()) == ({}, None)
    assert restarted.take_changes() == dict.fromkeys(windows)


@thorough
@given(rules(), streams(), st.data())
def test_restarts_change_nothing(rule: Rule, given: Sequence[Stored], data: st.DataObject) -> None:
    """A decider that goes on from what another remembered gives the same bytes."""
    expected = whole(rule, given)
    points = data.draw(st.sets(st.integers(0, len(given))))
    decider, fired = Decider(rule, host=HOST), set[str]()
    found: list[Decision] = []
    for n, one in enumerate(given):
        if n in points:
            windows, last = carried(decider)
            if data.draw(st.booleans()):
                windows = forget_ended(windows, given[n - 1].stored_us if n else 0)
            decider = Decider(rule, host=HOST, windows=windows, last=last)
        found += play(decider, [one], fired=fired)
    windows, last = carried(decider)
    found += Decider(rule, host=HOST, windows=windows, last=last).advance(END_US)
    assert encoded(found) == encoded(expected)


@thorough
@given(rules(), streams())
def test_a_restart_from_changes(rule: Rule, given: Sequence[Stored]) -> None:
    """Windows that are written change by change are those that the decider remembers."""
    decider = Decider(rule, host=HOST)
    written: dict[str, Window] = {}
    for one in given:
        play(decider, [one])
        for name, window in decider.take_changes().items():
            if window is None:
                written.pop(name, None)
            else:
                written[name] = window
    assert written == dict(decider.windows)


@thorough
@given(rules(), streams())
def test_sweeping_changes_nothing(rule: Rule, given: Sequence[Stored]) -> None:
    """A decider that forgets ended windows at every step decides like one that never does."""
    with mock.patch.object(decider_module, "SWEEP", 10**9):
        never = whole(rule, given)
    with mock.patch.object(decider_module, "SWEEP", -(10**9)):
        always = Decider(rule, host=HOST)
        decisions = play(always, given, until_us=END_US)
    assert encoded(decisions) == encoded(never)


@st.composite
def set_back(draw: st.DrawFn) -> list[Stored]:
    """A stream whose broker's clock was set back once."""
    given = draw(streams())
    at = draw(st.integers(0, len(given)))
    by_us = draw(st.integers(0, 20 * S))
    return [
        msgspec.structs.replace(one, stored_us=one.stored_us - by_us * (n >= at))
        for n, one in enumerate(given)
    ]


@thorough
@given(rules(), set_back(), st.data())
def test_a_clock_that_was_set_back_changes_nothing(
    rule: Rule, given: Sequence[Stored], data: st.DataObject
) -> None:
    """Whatever was forgotten before, and whoever goes on, time does not go back with the clock."""
    with mock.patch.object(decider_module, "SWEEP", 10**9):
        never = whole(rule, given)
    points = data.draw(st.sets(st.integers(0, len(given))))
    with mock.patch.object(decider_module, "SWEEP", -(10**9)):
        decider, fired = Decider(rule, host=HOST), set[str]()
        found: list[Decision] = []
        for n, one in enumerate(given):
            if n in points:
                windows, last = carried(decider)
                latest_us = decider.latest_us
                decider = Decider(rule, host=HOST, windows=windows, last=last, latest_us=latest_us)
            found += play(decider, [one], fired=fired)
        found += play(decider, [], until_us=END_US, fired=fired)
    assert encoded(found) == encoded(never)


@thorough
@given(rules(), streams(), st.data())
def test_an_alarm_clock_changes_nothing(
    rule: Rule, given: Sequence[Stored], data: st.DataObject
) -> None:
    """However often time is told to have gone on, the decisions and their bytes are the same."""
    expected = whole(rule, given)
    decider, fired = Decider(rule, host=HOST), set[str]()
    found: list[Decision] = []
    before_us = 0
    for one in given:
        between = st.lists(st.integers(before_us, one.stored_us), max_size=3)
        for moment in sorted(data.draw(between)):
            found += play(decider, [], until_us=moment, fired=fired)
        found += play(decider, [one], fired=fired)
        before_us = one.stored_us
    while (due_us := decider.next_due()) is not None:
        found += play(decider, [], until_us=due_us, fired=fired)
    assert encoded(found) == encoded(expected)


@thorough
@given(rules(), streams())
def test_timers_are_in_the_order_of_time(rule: Rule, given: Sequence[Stored]) -> None:
    """Decisions are in the order of their times; at one time, timers by name before events."""
    decisions = whole(rule, given)
    order = [(d.at_us, d.timer is None, d.timer or "") for d in decisions]
    assert order == sorted(order)


@thorough
@given(rules(), streams())
def test_records_give_their_decisions_again(rule: Rule, given: Sequence[Stored]) -> None:
    """From its record, the event and the rule alone, every decision comes out byte for byte."""
    events = {one.seq: one for one in given}
    for decision in whole(rule, given):
        data = decision.encode()
        read = msgspec.json.decode(data, type=Decision)
        assert read.encode() == data
        for record in (decision, read):
            assert again(rule, record, events).encode() == data


def again(rule: Rule, record: Decision, events: dict[int, Stored]) -> Decision:
    """The decision that a record is of, made again; a derivable one without the record's help."""
    one = events[record.event_seq]
    if record.derivable:
        return decide(rule, one.event, {}, now_us=one.stored_us, host=record.host, seq=one.seq)[0]
    state = {name: window for name, window in record.saw.items() if window is not None}
    if record.timer is not None:
        return due(rule, record.timer, state, host=record.host)[0]
    seqs = {wanted: record.last[wanted.call] for wanted in rule.last}
    return decide(
        rule,
        one.event,
        state,
        now_us=record.at_us,
        host=record.host,
        seq=record.event_seq,
        handled=record.outcome == "duplicate",
        last={w: Newest(s, events[s].event) for w, s in seqs.items() if s is not None},
    )[0]


@thorough
@given(rules(state="enabled"), streams(repeats=False))
def test_shadow_remembers_like_enabled(rule: Rule, given: Sequence[Stored]) -> None:
    """In shadow the windows and the moments of firing are those of the enabled profile."""
    enabled = Decider(rule, host=HOST)
    shadow = Decider(msgspec.structs.replace(rule, state="shadow"), host=HOST)
    for one in given:
        ours, theirs = play(enabled, [one]), play(shadow, [one])
        assert [(d.fires, d.event_id, d.events) for d in ours] == [
            (d.fires, d.event_id, d.events) for d in theirs
        ]
        assert not any(d.outcome == "fire" for d in theirs)
        assert enabled.windows == shadow.windows


@thorough
@given(rules(), rules(), streams(), st.data())
def test_any_text_after_any_other(
    old: Rule, new: Rule, given: Sequence[Stored], data: st.DataObject
) -> None:
    """After an edit the decider goes on, as one that was started with the new text would."""
    point = data.draw(st.integers(0, len(given)))
    decider = Decider(old, host=HOST)
    play(decider, given[:point])
    windows, last = carried(decider)
    decider.exchange(new)
    live = play(decider, given[point:], until_us=END_US)
    kept = {one: newest for one, newest in last.items() if one in new.last}
    restarted = Decider(new, host=HOST, windows=windows, last=kept)
    assert encoded(live) == encoded(play(restarted, given[point:], until_us=END_US))


@given(rules(), streams())
def test_deciding_is_pure(rule: Rule, given: Sequence[Stored]) -> None:
    """`decide` and `due` change nothing that they are given, and answer the same twice."""
    decider = Decider(rule, host=HOST)
    for one in given:
        for _ in decider.advance(one.stored_us):
            pass
        state = dict(decider.windows)
        facts = {"now_us": one.stored_us, "host": HOST, "seq": one.seq, "last": decider.last}
        first = decide(rule, one.event, state, **facts)  # type: ignore[arg-type]
        second = decide(rule, one.event, state, **facts)  # type: ignore[arg-type]
        assert first == second
        for name, window in state.items():
            if window.due_us is not None:
                assert due(rule, name, state, host=HOST) == due(rule, name, state, host=HOST)
        assert state == decider.windows
        decider.decide(one.event, seq=one.seq, stored_us=one.stored_us)
