"""The decision engine: pure, ordered, and with a reason for every answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.router.decisions import HOST, KEY, S, event, rule

from opsmesh.router.conditions import Expression, Last
from opsmesh.router.decide import Decision, EventRef, Newest, State, decide, due, key_of
from opsmesh.router.rule import Rule
from opsmesh.router.stages import (
    Collect,
    Correlate,
    Debounce,
    Item,
    Limits,
    Throttle,
    Unless,
    Window,
)
from opsmesh.schemas.envelope import Event

UNIT = {"unit": "backup.service", "n": 3}
WAITING = Window(
    opened_us=0,
    last_us=0,
    until_us=60 * S,
    due_us=60 * S,
    items=(Item("0", "t.a", 7, 0, ()),),
)


def outcome(
    rule: Rule, event: Event, state: State | None = None, *, now_us: int = 0, **more: Any
) -> Decision:
    return decide(rule, event, state or {}, now_us=now_us, host=HOST, **more)[0]


def said(decision: Decision) -> tuple[str, str]:
    return decision.outcome, decision.clause


def test_fires_on_its_topic() -> None:
    """An enabled profile fires on a topic that it listens to."""
    decided = outcome(rule(on=("t.>",)), event("e", "t.a.b"), seq=5, now_us=9)
    assert said(decided) == ("fire", "on")
    assert (decided.event_id, decided.event_seq, decided.topic) == ("e", 5, "t.a.b")
    assert (decided.profile, decided.profile_hash, decided.host) == ("p", "h", HOST)
    assert (decided.at_us, decided.events, decided.reason) == (9, (), "listens to t.a.b")


def test_other_topics_are_filtered() -> None:
    """A topic that the profile does not listen to is filtered by `on`, and named."""
    decided = outcome(rule(), event(topic="x.y"))
    assert said(decided) == ("filtered", "on")
    assert decided.reason == "listens to t.a, not to x.y"
    assert decided.values == {"topic": "x.y"}


def test_where_decides_with_the_values_it_read() -> None:
    """A condition that is false filters, and the decision holds the values of its fields."""
    where = Expression('event.payload.unit.endsWith(".timer") && event.severity == "error"')
    decided = outcome(rule(where=where), event(payload=UNIT))
    assert said(decided) == ("filtered", "where")
    assert decided.values == {"event.payload.unit": "backup.service", "event.severity": "info"}


def test_true_where_is_the_reason_to_fire() -> None:
    """A decision to fire names the condition that was true."""
    decided = outcome(rule(where=Expression("event.payload.n > 2")), event(payload=UNIT))
    assert said(decided) == ("fire", "where")
    assert decided.reason == "event.payload.n > 2 is true"
    assert decided.values == {"event.payload.n": 3}


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("event.payload.unti == 'x'", "the condition cannot be answered: no field"),
        ("event.payload.n", "event.payload.n is 3"),
        ("event.payload.n > 3", "event.payload.n > 3 is false"),
    ],
)
def test_only_true_lets_an_event_through(where: str, reason: str) -> None:
    """What cannot be answered, and what is no boolean, is not taken for a yes."""
    decided = outcome(rule(where=Expression(where)), event(payload=UNIT))
    assert said(decided) == ("filtered", "where")
    assert decided.reason.startswith(reason)


def test_conditions_read_vars_and_host() -> None:
    """`vars` of the profile and the event's `host` are there for its condition."""
    where = Expression(f'event.payload.n > vars.least && host == "{HOST}"')
    assert outcome(rule(where=where, vars={"least": 2}), event(payload=UNIT)).fires
    assert not outcome(rule(where=where, vars={"least": 3}), event(payload=UNIT)).fires


@pytest.mark.parametrize(
    ("run_on", "event_host", "fires"),
    [
        ("origin", "laptop", True),
        ("origin", "Laptop", True),
        ("origin", "desk", False),
        ("any", "desk", True),
        ("laptop", "desk", True),
        ("desk", "laptop", False),
    ],
)
def test_run_on(run_on: str, event_host: str, fires: bool) -> None:
    """`origin` acts where the event came from, a name on that host, `any` everywhere."""
    decided = outcome(rule(run_on=run_on), event(host=event_host))
    assert decided.fires is fires
    assert fires or said(decided) == ("suppressed", "run_on")


def test_hops_stop_a_loop() -> None:
    """An event that is further from its first cause than max_hops is suppressed."""
    assert outcome(rule(max_hops=2), event(hops=2)).fires
    decided = outcome(rule(max_hops=2), event(hops=3))
    assert (said(decided), decided.values) == (("suppressed", "hops"), {"hops": 3})


def test_order_of_clauses() -> None:
    """The first clause that says no decides; when it is put right, the next one does."""
    debounce = Debounce(window_us=60 * S)
    stopped = rule(
        state="disabled",
        run_on="desk",
        max_hops=0,
        where=Expression("event.payload.n > 5"),
        debounce=debounce,
        limits=Limits(at_most=1, per_us=60 * S),
    )
    one = event(topic="x.y", hops=1, payload=UNIT)
    full = {
        f"debounce.{key_of(debounce, one.view())}": Window(opened_us=0, last_us=0, until_us=60 * S),
        "limits.all": Window(opened_us=0, last_us=0, until_us=60 * S, passed_us=(0,)),
    }
    put_right: tuple[tuple[str, dict[str, Any]], ...] = (
        ("state", {"state": "shadow"}),
        ("run_on", {"run_on": "any"}),
        ("on", {"on": ("x.y",)}),
        ("hops", {"max_hops": 1}),
        ("where", {"where": None}),
        ("debounce", {"debounce": None}),
        ("limits", {"limits": None}),
        ("shadow", {"state": "enabled"}),
        ("on", {}),
    )
    for clause, change in put_right:
        assert outcome(stopped, one, full, now_us=1).clause == clause
        stopped = msgspec.structs.replace(stopped, **change)


def test_handled_event_is_a_duplicate() -> None:
    """An event that has a run already is a duplicate, after `where` and before the stages."""
    throttled = rule(
        where=Expression("event.payload.n == 3"), throttle=Throttle(at_most=1, per_us=9)
    )
    decided, changes = decide(
        throttled, event("e", payload=UNIT), {}, now_us=0, host=HOST, handled=True
    )
    assert (said(decided), decided.values) == (("duplicate", "event"), {"id": "e"})
    assert (decided.saw, changes, decided.derivable) == ({}, {}, False)
    assert outcome(throttled, event(payload={"n": 1}), handled=True).clause == "where"


def test_disabled_decides_nothing() -> None:
    """A disabled profile changes no window, ends no wait and fires for no timer."""
    disabled = rule(
        state="disabled", unless=Unless(on=("t.z",), within_us=60 * S, key=()), throttle=None
    )
    windows = {"unless.all": WAITING}
    for topic in ("t.a", "t.z"):
        decided, changes = decide(disabled, event(topic=topic), windows, now_us=1, host=HOST)
        assert (said(decided), changes) == (("suppressed", "state"), {})
    decided, changes = due(disabled, "unless.all", windows, host=HOST)
    assert (said(decided), changes) == (("suppressed", "state"), {"unless.all": None})


def test_shadow_says_what_it_would_have_done() -> None:
    """In shadow a firing is a suppressed one that tells why it would have fired."""
    shadow = rule(state="shadow", where=Expression("event.payload.n == 3"))
    decided = outcome(shadow, event(payload=UNIT))
    assert said(decided) == ("suppressed", "shadow")
    assert decided.reason == (
        "would have fired (where: event.payload.n == 3 is true); the profile is in shadow"
    )
    assert decided.values == {"event.payload.n": 3}
    assert decided.fires
    assert not decided.derivable
    missed = outcome(shadow, event())
    assert (said(missed), missed.fires) == (("filtered", "where"), False)


AWAITED = Unless(on=("t.z",), within_us=60 * S, key=KEY)


def awaiting(**more: Any) -> Rule:
    return rule(unless=AWAITED, **more)


def waits(key: str) -> dict[str, Window]:
    return {f"unless.{key_of(AWAITED, event(payload={'k': key}).view())}": WAITING}


def answer(key: str, **more: Any) -> Event:
    return event("9", "t.z", payload={"k": key, **more})


def test_an_answer_ends_the_wait() -> None:
    """What `unless` waits for is a decision of its own, which names what began the wait."""
    state = waits("x")
    decided, changes = decide(awaiting(), answer("x"), state, now_us=5 * S, host=HOST)
    assert said(decided) == ("filtered", "unless")
    assert decided.reason == "ends the wait that t.a 0 began 5 s before"
    assert decided.values == {"payload.k": "x"}
    assert decided.saw == state
    assert changes == dict.fromkeys(state)
    assert not decided.derivable


def test_an_answer_to_nobody() -> None:
    """An answer with another key ends no wait, and its decision shows that there was none."""
    decided, changes = decide(awaiting(), answer("y"), waits("x"), now_us=5 * S, host=HOST)
    assert (said(decided), decided.reason) == (("filtered", "unless"), "nothing waits for it")
    assert (decided.saw, changes) == (dict.fromkeys(waits("y")), {})


def test_unless_where() -> None:
    """An event of the awaited topic that does not meet `unless.where` is no answer."""
    picky = awaiting(unless_where=Expression("event.payload.ok"))
    good = outcome(picky, answer("x", ok=True), waits("x"), now_us=S)
    assert said(good) == ("filtered", "unless")
    for other in (answer("x", ok=False), answer("x")):
        decided, changes = decide(picky, other, waits("x"), now_us=S, host=HOST)
        assert (said(decided), changes) == (("filtered", "on"), {})


def test_one_topic_that_begins_and_ends_a_wait() -> None:
    """With `unless.where` one topic may be both: what it takes for an answer begins no wait."""
    both = rule(
        unless=Unless(on=("t.a",), within_us=60 * S, key=KEY),
        unless_where=Expression("event.payload.ok"),
    )
    assert said(outcome(both, event(payload={"k": "x", "ok": True}))) == ("filtered", "unless")
    assert said(outcome(both, event(payload={"k": "x", "ok": False}))) == ("waiting", "unless")


def test_an_answer_from_elsewhere() -> None:
    """An answer that `run_on` keeps out ends no wait."""
    elsewhere = msgspec.structs.replace(answer("x"), host="desk")
    decided, changes = decide(awaiting(), elsewhere, waits("x"), now_us=S, host=HOST)
    assert (said(decided), changes) == (("suppressed", "run_on"), {})


READY, CALM = Last("t.ready"), Last("t.calm", anywhere=True)


def newest(topic: str, n: int, *, seq: int) -> Newest:
    return Newest(seq, event(f"{topic}-{n}", topic, payload={"n": n, "m": {"deep": n}}))


def test_last_is_on_record() -> None:
    """A decision that read `last(…)` holds the values and the sequences of those events."""
    where = Expression(
        'last("t.ready").payload.n == 1 && last("t.calm", "any").payload.m.deep == 2'
    )
    known = {READY: newest("t.ready", 1, seq=11), CALM: newest("t.calm", 2, seq=12)}
    decided = outcome(rule(where=where), event(), last=known)
    assert said(decided) == ("fire", "where")
    assert decided.last == {'last("t.ready")': 11, 'last("t.calm", "any")': 12}
    assert decided.values == {
        'last("t.ready").payload.n': 1,
        'last("t.calm", "any").payload.m.deep': 2,
    }


def test_last_is_null_before_the_first() -> None:
    """Before the first event of a topic, `last` of it is null, and the record says so."""
    asks = rule(where=Expression('last("t.ready") == null'))
    decided = outcome(asks, event())
    assert said(decided) == ("fire", "where")
    assert decided.last == {'last("t.ready")': None}
    assert decided.values == {'last("t.ready")': None}
    takes = outcome(rule(where=Expression('last("t.ready").payload.n == 1')), event())
    assert said(takes) == ("filtered", "where")
    assert "there is no t.ready yet" in takes.reason
    assert not takes.derivable


def test_now_is_the_store_time() -> None:
    """`now` in a condition is the time at which the broker stored the event, and is on record."""
    night = rule(where=Expression("now.getHours() == 3"))
    decided = outcome(night, event(), now_us=(3 * 3600 + 1) * S)
    assert said(decided) == ("fire", "where")
    assert msgspec.json.decode(decided.encode())["values"] == {"now": "1970-01-01T03:00:01Z"}
    assert outcome(night, event(), now_us=4 * 3600 * S).outcome == "filtered"


@pytest.mark.parametrize(
    ("decided", "derivable"),
    [
        (outcome(rule(), event(topic="x.y")), True),
        (outcome(rule(where=Expression("false")), event()), True),
        (outcome(rule(where=Expression("now == now && false")), event()), True),
        (outcome(rule(where=Expression('last("t.b") != null')), event()), False),
        (outcome(rule(max_hops=0), event(hops=1)), True),
        (outcome(rule(run_on="desk"), event()), True),
        (outcome(rule(state="disabled"), event()), True),
        (outcome(rule(), event(), handled=True), False),
        (outcome(rule(), event()), False),
        (outcome(rule(state="shadow"), event()), False),
        (outcome(rule(debounce=Debounce(window_us=1, edge="trailing")), event()), False),
        (outcome(awaiting(), answer("x")), False),
        (
            outcome(
                rule(
                    on=("t.a", "t.b"),
                    correlate=Correlate(parts=("t.b", "t.a"), within_us=9, ordered=True),
                ),
                event(),
            ),
            False,
        ),
    ],
)
def test_derivable(decided: Decision, derivable: bool) -> None:
    """A decision that needed nothing but the event and the rule can be made again from them."""
    assert decided.derivable is derivable


def test_due_is_about_the_last_event_that_passes() -> None:
    """A timer's decision has the window's time, the event that it is about, and all of them."""
    collected = rule(collect=Collect(window_us=60 * S))
    items = (Item("1", "t.a", 1, 0, ()), Item("2", "t.a", 4, 9, ()))
    window = msgspec.structs.replace(WAITING, items=items, count=2)
    decided, changes = due(collected, "collect.all", {"collect.all": window}, host=HOST)
    assert said(decided) == ("fire", "collect")
    assert (decided.at_us, decided.timer, decided.event_id) == (60 * S, "collect.all", "2")
    assert decided.events == (EventRef("1", 1), EventRef("2", 4))
    assert (decided.event_seq, decided.reason) == (4, "2 events in 60 s")
    assert (decided.saw, changes) == ({"collect.all": window}, {"collect.all": None})


def test_a_timer_that_adds_to_a_collection_does_not_repeat_it() -> None:
    """The record of a timer's miss shows its own window whole, and of a collection the number."""
    chained = rule(
        debounce=Debounce(window_us=60 * S, key=(), edge="trailing"),
        collect=Collect(window_us=600 * S),
    )
    held = Window(
        opened_us=0,
        last_us=0,
        until_us=600 * S,
        due_us=600 * S,
        count=1,
        items=(Item("8", "t.a", 3, 0, ()),),
    )
    windows = {"debounce.all": WAITING, "collect.all": held}
    decided, _ = due(chained, "debounce.all", windows, host=HOST)
    assert said(decided) == ("collecting", "collect")
    slim = msgspec.structs.replace(held, items=())
    assert decided.saw == {"debounce.all": WAITING, "collect.all": slim}
    state = {name: window for name, window in decided.saw.items() if window is not None}
    assert due(chained, "debounce.all", state, host=HOST)[0] == decided


def test_a_window_at_its_end_is_none() -> None:
    """A window whose time is over is not looked at, and the record shows that there was none."""
    throttled = rule(throttle=Throttle(at_most=1, per_us=9))
    state = {"throttle.all": Window(opened_us=0, last_us=0, until_us=5, passed_us=(0,))}
    for now_us, expected in ((4, "throttled"), (5, "fire"), (6, "fire")):
        decided = outcome(throttled, event(), state, now_us=now_us)
        assert decided.outcome == expected
        assert decided.saw == {"throttle.all": state["throttle.all"] if now_us < 5 else None}


def test_filtered_event_leaves_the_windows_alone() -> None:
    """What `where` keeps out does not lengthen a burst."""
    filtered = rule(where=Expression("false"), debounce=Debounce(window_us=30 * S))
    decided, changes = decide(filtered, event(), {}, now_us=0, host=HOST)
    assert (decided.saw, changes) == ({}, {})


def test_encoded_decisions_are_canonical() -> None:
    """The order in which values were read is not in the bytes, and the bytes give it back."""
    one = event(payload={"b": {"y": 1, "x": 2.0}, "a": 2**70, "t": "ä\u2028"})
    other = event(payload={"t": "ä\u2028", "a": 2**70, "b": {"x": 2.0, "y": 1}})
    text = "event.payload.b != null && event.payload.a != null && event.payload.t == ''"
    first = outcome(rule(where=Expression(text)), one).encode()
    assert first == outcome(rule(where=Expression(text)), other).encode()
    assert msgspec.json.decode(first, type=Decision).encode() == first
    windows = {"limits.all": WAITING, "throttle.all": WAITING}
    saw = outcome(rule(), one)
    turned = dict(reversed(windows.items()))
    assert (
        msgspec.structs.replace(saw, saw=dict(windows)).encode()
        == msgspec.structs.replace(saw, saw=dict(turned)).encode()
    )
