"""The stages: what passes, what waits, and when; alone and one after another."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.router.decisions import HOST, KEY, S, Stored, event, play, rule, stream, told

from opsmesh.router.decider import Decider
from opsmesh.router.stages import (
    Collect,
    Correlate,
    Debounce,
    Item,
    Limits,
    Stage,
    Throttle,
    Unless,
    Window,
    remembered,
)

LEADING = Debounce(window_us=30 * S, key=KEY)
TRAILING = Debounce(window_us=30 * S, key=KEY, edge="trailing")


@pytest.mark.parametrize(
    ("given", "decided"),
    [
        ("a@0", "0=fire(1)"),
        ("a@0 a@29.999999", "0=fire(1) 29.999999=debounced(2)"),
        ("a@0 a@30", "0=fire(1) 30=fire(2)"),
        ("a@0 a@30.000001", "0=fire(1) 30.000001=fire(2)"),
        ("a@0 a@20 a@40 a@70", "0=fire(1) 20=debounced(2) 40=debounced(3) 70=fire(4)"),
        ("a@0 a@0", "0=fire(1) 0=debounced(2)"),
        ("a/x@0 a/y@1 a/x@2 a/y@3", "0=fire(1) 1=fire(2) 2=debounced(3) 3=debounced(4)"),
    ],
)
def test_leading_debounce(given: str, decided: str) -> None:
    """A burst fires with its first event; the next one fires after a quiet window."""
    assert told(rule(debounce=LEADING), given) == decided


@pytest.mark.parametrize(
    ("given", "decided"),
    [
        ("a@0 a@25 a@49.999999", "0=fire(1) 25=debounced(2) 49.999999=debounced(3)"),
        ("a@0 a@25 a@50 a@75", "0=fire(1) 25=debounced(2) 50=fire(3) 75=debounced(4)"),
        ("a@0 a@25 a@51 a@101", "0=fire(1) 25=debounced(2) 51=fire(3) 101=fire(4)"),
    ],
)
def test_leading_debounce_with_max_wait(given: str, decided: str) -> None:
    """A burst that never ends fires again after max_wait, from which the next wait counts."""
    debounce = msgspec.structs.replace(LEADING, max_wait_us=50 * S)
    assert told(rule(debounce=debounce), given) == decided


@pytest.mark.parametrize(
    ("given", "decided"),
    [
        ("a@0", "0=debounced(1) 30!fire(1)"),
        ("a@0 a@20", "0=debounced(1) 20=debounced(2) 50!fire(2)"),
        ("a@0 a@29.999999", "0=debounced(1) 29.999999=debounced(2) 59.999999!fire(2)"),
        ("a@0 a@30", "0=debounced(1) 30!fire(1) 30=debounced(2) 60!fire(2)"),
        ("a@0 a@40", "0=debounced(1) 30!fire(1) 40=debounced(2) 70!fire(2)"),
        ("a/x@0 a/y@5", "0=debounced(1) 5=debounced(2) 30!fire(1) 35!fire(2)"),
    ],
)
def test_trailing_debounce(given: str, decided: str) -> None:
    """A burst fires with its last event, once it has been quiet for the window."""
    assert told(rule(debounce=TRAILING), given) == decided


@pytest.mark.parametrize(
    ("given", "decided"),
    [
        ("a@0 a@10", "0=debounced(1) 10=debounced(2) 40!fire(2)"),
        ("a@0 a@25 a@45", "0=debounced(1) 25=debounced(2) 45=debounced(3) 50!fire(3)"),
        (
            "a@0 a@25 a@50",
            "0=debounced(1) 25=debounced(2) 50!fire(2) 50=debounced(3) 80!fire(3)",
        ),
    ],
)
def test_trailing_debounce_with_max_wait(given: str, decided: str) -> None:
    """The timer comes at the end of the quiet or of max_wait, whichever is first."""
    debounce = msgspec.structs.replace(TRAILING, max_wait_us=50 * S)
    assert told(rule(debounce=debounce), given) == decided


def test_default_key_is_topic_and_workspace() -> None:
    """Bursts are told apart by topic and workspace, unless the profile names a key."""
    decider = Decider(rule(on=("t.*",), debounce=Debounce(window_us=S)), host=HOST)
    given = [
        Stored(event("1"), 1, 0),
        Stored(event("2", workspace="play"), 2, 0),
        Stored(event("3", "t.b"), 3, 0),
        Stored(event("4", payload={"k": 1}), 4, 0),
    ]
    assert [d.outcome for d in play(decider, given)] == ["fire", "fire", "fire", "debounced"]


@pytest.mark.parametrize(
    ("stage", "no"),
    [
        (Throttle(at_most=2, per_us=60 * S, key=KEY), "throttled"),
        (Limits(at_most=2, per_us=60 * S), "suppressed"),
    ],
)
@pytest.mark.parametrize(
    ("given", "decided"),
    [
        ("a@0 a@0 a@0", "0=fire(1) 0=fire(2) 0=NO(3)"),
        ("a@0 a@10 a@59.999999", "0=fire(1) 10=fire(2) 59.999999=NO(3)"),
        ("a@0 a@10 a@60 a@69.999999", "0=fire(1) 10=fire(2) 60=fire(3) 69.999999=NO(4)"),
        ("a@0 a@10 a@60 a@70", "0=fire(1) 10=fire(2) 60=fire(3) 70=fire(4)"),
        ("a@0 a@10 a@20 a@30 a@60", "0=fire(1) 10=fire(2) 20=NO(3) 30=NO(4) 60=fire(5)"),
    ],
)
def test_throttle_and_limits(stage: Throttle, no: str, given: str, decided: str) -> None:
    """So many pass in any time of the given length; those that do not pass are not counted."""
    assert told(rule(**{stage.name: stage}), given) == decided.replace("NO", no)


def test_throttle_keeps_keys_apart_and_limits_do_not() -> None:
    """A throttle counts for each key, the limits for the whole profile."""
    given = "a/x@0 a/y@1 a/x@2"
    assert told(rule(throttle=Throttle(at_most=1, per_us=60 * S, key=KEY)), given) == (
        "0=fire(1) 1=fire(2) 2=throttled(3)"
    )
    assert told(rule(limits=Limits(at_most=1, per_us=60 * S)), given) == (
        "0=fire(1) 1=suppressed(2) 2=suppressed(3)"
    )


@given(
    gaps=st.lists(st.integers(0, 20), min_size=1, max_size=40),
    at_most=st.integers(1, 4),
    per=st.integers(1, 30),
)
def test_throttle_is_a_sliding_window(gaps: list[int], at_most: int, per: int) -> None:
    """An event passes exactly when fewer than at_most passed in the time before it."""
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    stored = [Stored(event(str(n)), n, at) for n, at in enumerate(times, 1)]
    throttled = rule(throttle=Throttle(at_most=at_most, per_us=per))
    passed: list[int] = []
    for decision in play(Decider(throttled, host=HOST), stored):
        room = sum(decision.at_us - at < per for at in passed) < at_most
        assert (decision.outcome == "fire") is room
        if room:
            passed.append(decision.at_us)


@pytest.mark.parametrize(
    ("given", "decided"),
    [
        ("a@0", "0=collecting(1) 60!fire(1)"),
        ("a@0 a@59.999999", "0=collecting(1) 59.999999=collecting(2) 60!fire(1+2)"),
        ("a@0 a@60", "0=collecting(1) 60!fire(1) 60=collecting(2) 120!fire(2)"),
        ("a@0 a@1 a@2", "0=collecting(1) 1=collecting(2) 2=fire(1+2+3)"),
        (
            "a@0 a@1 a@2 a@3",
            "0=collecting(1) 1=collecting(2) 2=fire(1+2+3) 3=collecting(4) 63!fire(4)",
        ),
        (
            "a/x@0 a/y@1 a/x@2",
            "0=collecting(1) 1=collecting(2) 2=collecting(3) 60!fire(1+3) 61!fire(2)",
        ),
    ],
)
def test_collect(given: str, decided: str) -> None:
    """One firing has all events of the window from the first on, or as many as it may, in order."""
    assert told(rule(collect=Collect(window_us=60 * S, max=3, key=KEY)), given) == decided


PAIR = {"on": ("t.a", "t.b"), "parts": ("t.a", "t.b")}
TRIO = {"on": ("t.a", "t.b", "t.c"), "parts": ("t.a", "t.b", "t.c")}


@pytest.mark.parametrize(
    ("parts", "given", "decided"),
    [
        (PAIR, "a@0 b@60", "0=collecting(1) 60=fire(1+2)"),
        (PAIR, "a@0 b@60.000001", "0=collecting(1) 60.000001=collecting(2)"),
        (PAIR, "b@0 a@5", "0=collecting(1) 5=fire(1+2)"),
        (PAIR, "a@0 b@0", "0=collecting(1) 0=fire(1+2)"),
        # the newest event of a part counts
        (PAIR, "a@0 a@50 b@100", "0=collecting(1) 50=collecting(2) 100=fire(2+3)"),
        # an event is used once
        (PAIR, "a@0 b@1 b@2 a@3", "0=collecting(1) 1=fire(1+2) 2=collecting(3) 3=fire(3+4)"),
        (PAIR, "a/x@0 b/y@1 b/x@2", "0=collecting(1) 1=collecting(2) 2=fire(1+3)"),
        (TRIO, "c@0 a@1 b@2", "0=collecting(1) 1=collecting(2) 2=fire(1+2+3)"),
        # a part that came too long ago has to come again; the others are kept
        (
            TRIO,
            "a@0 b@50 c@61 a@62",
            "0=collecting(1) 50=collecting(2) 61=collecting(3) 62=fire(2+3+4)",
        ),
    ],
)
def test_correlate(parts: dict[str, tuple[str, ...]], given: str, decided: str) -> None:
    """One event of every part within the time, in any order, is a firing of them all."""
    correlate = Correlate(parts=parts["parts"], within_us=60 * S, key=KEY)
    assert told(rule(on=parts["on"], correlate=correlate), given) == decided


@pytest.mark.parametrize(
    ("parts", "given", "decided"),
    [
        (PAIR, "a@0 b@60", "0=collecting(1) 60=fire(1+2)"),
        (PAIR, "a@0 b@60.000001", "0=collecting(1) 60.000001=filtered(2)"),
        (PAIR, "b@0 a@5 b@6", "0=filtered(1) 5=collecting(2) 6=fire(2+3)"),
        (PAIR, "a@0 a@50 b@100", "0=collecting(1) 50=collecting(2) 100=fire(2+3)"),
        (PAIR, "a@0 b@1 b@2", "0=collecting(1) 1=fire(1+2) 2=filtered(3)"),
        (PAIR, "a/x@0 b/y@1 b/x@2", "0=collecting(1) 1=filtered(2) 2=fire(1+3)"),
        (
            TRIO,
            "a@0 c@1 b@2 c@3",
            "0=collecting(1) 1=filtered(2) 2=collecting(3) 3=fire(1+3+4)",
        ),
        # a newer beginning does not take what an older one has come to
        (
            TRIO,
            "a@0 b@10 a@20 c@30",
            "0=collecting(1) 10=collecting(2) 20=collecting(3) 30=fire(1+2+4)",
        ),
        # when the older one is out of time, the newer one goes on
        (
            TRIO,
            "a@0 b@10 a@50 c@61 b@62 c@63",
            "0=collecting(1) 10=collecting(2) 50=collecting(3) 61=filtered(4) 62=collecting(5) "
            "63=fire(3+5+6)",
        ),
    ],
)
def test_correlate_in_order(parts: dict[str, tuple[str, ...]], given: str, decided: str) -> None:
    """With `ordered` the parts have to come in the order in which the profile names them."""
    correlate = Correlate(parts=parts["parts"], within_us=60 * S, key=KEY, ordered=True)
    assert told(rule(on=parts["on"], correlate=correlate), given) == decided


@pytest.mark.parametrize(
    ("given", "decided"),
    [
        ("a@0", "0=waiting(1) 60!fire(1)"),
        ("a@0 z@0", "0=waiting(1) 0=filtered(2)"),
        ("a@0 z@59.999999", "0=waiting(1) 59.999999=filtered(2)"),
        ("a@0 z@60", "0=waiting(1) 60!fire(1) 60=filtered(2)"),
        ("a@0 a@30", "0=waiting(1) 30=waiting(2) 60!fire(1)"),
        ("a@0 a@60", "0=waiting(1) 60!fire(1) 60=waiting(2) 120!fire(2)"),
        ("a@0 z@30 a@31", "0=waiting(1) 30=filtered(2) 31=waiting(3) 91!fire(3)"),
        ("a/x@0 z/y@30", "0=waiting(1) 30=filtered(2) 60!fire(1)"),
        ("z@0 a@1", "0=filtered(1) 1=waiting(2) 61!fire(2)"),
    ],
)
def test_unless(given: str, decided: str) -> None:
    """It fires when the awaited event does not come; a second start does not move the wait."""
    assert told(rule(unless=Unless(on=("t.z",), within_us=60 * S, key=KEY)), given) == decided


THROTTLE = Throttle(at_most=1, per_us=100 * S)
BURST = Debounce(window_us=10 * S, key=(), edge="trailing")


@pytest.mark.parametrize(
    ("stages", "given", "decided"),
    [
        (
            (Unless(on=("t.z",), within_us=60 * S, key=()), THROTTLE),
            "a@0 a@61 a@160",
            "0=waiting(1) 60!fire(1) 61=waiting(2) 121!throttled(2) 160=waiting(3) 220!fire(3)",
        ),
        (
            (
                Correlate(parts=("t.a", "t.b"), within_us=60 * S, key=()),
                Debounce(window_us=30 * S, key=()),
                Limits(at_most=2, per_us=1000 * S),
            ),
            "a@0 b@1 a@2 b@3 a@40 b@41 a@80 b@81",
            "0=collecting(1) 1=fire(1+2) 2=collecting(3) 3=debounced(4) 40=collecting(5) "
            "41=fire(5+6) 80=collecting(7) 81=suppressed(8)",
        ),
        (
            (BURST, THROTTLE),
            "a@0 a@5 a@30 a@110",
            "0=debounced(1) 5=debounced(2) 15!fire(2) 30=debounced(3) 40!throttled(3) "
            "110=debounced(4) 120!fire(4)",
        ),
        # a burst that ends when the collecting does is one of the next
        (
            (BURST, Collect(window_us=60 * S)),
            "a@0 a@20 a@60",
            "0=debounced(1) 10!collecting(1) 20=debounced(2) 30!collecting(2) 60=debounced(3) "
            "70!fire(1+2) 70!collecting(3) 130!fire(3)",
        ),
        (
            (Collect(window_us=60 * S, max=2), THROTTLE),
            "a@0 a@1 a@2 a@3 a@50",
            "0=collecting(1) 1=fire(1+2) 2=collecting(3) 3=throttled(4) 50=collecting(5) "
            "110!fire(5)",
        ),
        # a correlated firing of many goes through a collect as its events
        (
            (
                Correlate(parts=("t.a", "t.b"), within_us=60 * S, key=()),
                Collect(window_us=60 * S, max=3),
            ),
            "a@0 b@1 b@2 a@3",
            "0=collecting(1) 1=collecting(2) 2=collecting(3) 3=fire(1+2+3+4)",
        ),
        (
            (
                Unless(on=("t.z",), within_us=20 * S, key=()),
                BURST,
                Collect(window_us=60 * S),
                Limits(at_most=1, per_us=1000 * S),
            ),
            "a@0 a@21 a@200",
            "0=waiting(1) 20!debounced(1) 21=waiting(2) 30!collecting(1) 41!debounced(2) "
            "51!collecting(2) 90!fire(1+2) 200=waiting(3) 220!debounced(3) 230!collecting(3) "
            "290!suppressed(3)",
        ),
    ],
)
def test_chains(stages: tuple[Stage, ...], given: str, decided: str) -> None:
    """What passes one stage goes to the next at that time, with all of its events."""
    on = next((s.parts for s in stages if isinstance(s, Correlate)), ("t.a",))
    assert told(rule(on=on, **{stage.name: stage for stage in stages}), given) == decided


def test_a_later_stage_keeps_the_keys_of_an_event_that_waited() -> None:
    """After a wait an event is told apart in the next stages by its own fields."""
    chained = rule(debounce=TRAILING, throttle=Throttle(at_most=1, per_us=100 * S, key=KEY))
    assert told(chained, "a/x@0 a/y@1 a/x@40 a/y@41") == (
        "0=debounced(1) 1=debounced(2) 30!fire(1) 31!fire(2) 40=debounced(3) 41=debounced(4) "
        "70!throttled(3) 71!throttled(4)"
    )


def test_many_events_are_told_apart_by_the_last() -> None:
    """A firing of several events has the key of the one that completed it in the next stages."""
    chained = rule(
        on=("t.a", "t.b"),
        correlate=Correlate(parts=("t.a", "t.b"), within_us=S, key=()),
        throttle=Throttle(at_most=1, per_us=100 * S, key=KEY),
    )
    assert told(chained, "a/x@0 b/y@1 a/y@2 b/x@3 a/z@4 b/y@5") == (
        "0=collecting(1) 1=fire(1+2) 2=collecting(3) 3=fire(3+4) 4=collecting(5) 5=throttled(6)"
    )


def test_a_key_of_several_fields() -> None:
    """Values of a key do not run into one another, and a missing field is a value of its own."""
    keyed = rule(throttle=Throttle(at_most=1, per_us=S, key=("payload.a", "payload.b")))
    payloads = [{"a": "x", "b": "yz"}, {"a": "xy", "b": "z"}, {"a": "x"}, {"b": "x"}, {"a": 1}]
    given = [Stored(event(str(n), payload=p), n, 0) for n, p in enumerate(payloads * 2, 1)]
    outcomes = [d.outcome for d in play(Decider(keyed, host=HOST), given)]
    assert outcomes == ["fire"] * 5 + ["throttled"] * 5


@given(
    gaps=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    window=st.integers(1, 30),
    most=st.integers(2, 5),
)
def test_collect_loses_nothing(gaps: list[int], window: int, most: int) -> None:
    """Every event is in exactly one firing, in the order in which they came."""
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    given = [Stored(event(str(n)), n, at) for n, at in enumerate(times, 1)]
    collected = rule(collect=Collect(window_us=window, max=most))
    fired = [
        [ref.seq for ref in d.events] or [d.event_seq]
        for d in play(Decider(collected, host=HOST), given, until_us=10_000)
        if d.fires
    ]
    assert [seq for seqs in fired for seq in seqs] == [one.seq for one in given]
    assert all(len(seqs) <= most for seqs in fired)
    assert all(times[seqs[-1] - 1] - times[seqs[0] - 1] < window for seqs in fired)


@given(
    gaps=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    window=st.integers(1, 30),
    max_wait=st.none() | st.integers(30, 80),
)
def test_spacing_of_a_leading_debounce(gaps: list[int], window: int, max_wait: int | None) -> None:
    """An event fires exactly when it comes a quiet window, or max_wait, after what was before."""
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    given = [Stored(event(str(n)), n, at) for n, at in enumerate(times, 1)]
    debounced = rule(debounce=Debounce(window_us=window, max_wait_us=max_wait))
    fired_at: int | None = None
    for n, decision in enumerate(play(Decider(debounced, host=HOST), given)):
        quiet = n == 0 or gaps[n] >= window
        waited = max_wait is not None and decision.at_us - (fired_at or 0) >= max_wait
        assert decision.fires is (fired_at is None or quiet or waited)
        if decision.fires:
            fired_at = decision.at_us


@given(
    letters=st.text("abc", min_size=1, max_size=30),
    gaps=st.lists(st.integers(0, 30), min_size=30, max_size=30),
    within=st.integers(1, 40),
    ordered=st.booleans(),
)
def test_what_correlate_fires(letters: str, gaps: list[int], within: int, ordered: bool) -> None:
    """A firing has one event of each part, close enough together, and none that another had."""
    text = " ".join(f"{letter}@{sum(gaps[: n + 1])}" for n, letter in enumerate(letters))
    parts = ("t.a", "t.b", "t.c")
    correlate = Correlate(parts=parts, within_us=within * S, key=(), ordered=ordered)
    given = {one.seq: one for one in stream(text)}
    used: set[int] = set()
    for decision in play(Decider(rule(on=parts, correlate=correlate), host=HOST), given.values()):
        if not decision.fires:
            continue
        events = [given[ref.seq] for ref in decision.events]
        topics = [one.event.topic for one in events]
        assert (topics if ordered else sorted(topics)) == list(parts)
        assert [one.seq for one in events] == sorted(one.seq for one in events)
        assert events[-1].stored_us - events[0].stored_us <= within * S
        assert not used.intersection(one.seq for one in events)
        used.update(one.seq for one in events)


@pytest.mark.parametrize(
    "stage",
    [
        Debounce(window_us=9, key=()),
        Debounce(window_us=9, max_wait_us=15, key=()),
        Throttle(at_most=2, per_us=9),
        Correlate(parts=("t.a", "t.b", "t.c"), within_us=9, key=()),
        Correlate(parts=("t.a", "t.b", "t.c"), within_us=9, key=(), ordered=True),
    ],
    ids=lambda stage: stage.name,
)
@given(
    arrivals=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), min_size=1),
    late=st.integers(0, 3),
    letter=st.sampled_from("abc"),
)
def test_an_ended_window_is_as_good_as_none(
    stage: Stage, arrivals: list[tuple[str, int]], late: int, letter: str
) -> None:
    """From its `until_us` on, what a window remembers makes no difference to what comes."""
    window, now_us = None, 0
    for seq, (topic, gap) in enumerate(arrivals):
        now_us += gap
        item = Item(str(seq), f"t.{topic}", seq, now_us, ())
        window = stage.arrive(window, (item,), now_us).window
    if window is None:
        return
    now_us = max(now_us, window.until_us) + late
    items = (Item("last", f"t.{letter}", 99, now_us, ()),)
    one, other = stage.arrive(window, items, now_us), stage.arrive(None, items, now_us)
    assert (one.passed, one.outcome, one.reason) == (other.passed, other.outcome, other.reason)


def test_correlate_forgets_parts_that_the_profile_no_longer_has() -> None:
    """After an edit, an event of a topic that is no part any more completes nothing."""
    before = Item("1", "t.a", 1, 0, ()), Item("2", "t.b", 2, 1, ())
    new = ("t.a", "t.x", "t.c")
    arrived = (Item("3", "t.c", 3, 2, ()),)
    loose = Window(opened_us=0, last_us=1, until_us=9, items=before)
    step = Correlate(parts=new, within_us=9).arrive(loose, arrived, 2)
    assert (step.passed, step.reason) == (None, "waits for t.x")
    chained = Window(opened_us=0, last_us=1, until_us=9, chains=(before[:1], before))
    step = Correlate(parts=new, within_us=9, ordered=True).arrive(chained, arrived, 2)
    assert (step.passed, step.outcome) == (None, "filtered")


def test_a_record_of_a_wait_does_not_repeat_what_is_collected() -> None:
    """Only the record of a firing has all the events of a collecting window."""
    window = Window(opened_us=0, last_us=0, until_us=9, items=(Item("1", "t.a", 1, 0, ()),))
    collect = Collect(window_us=9)
    missed = remembered(collect, window, fired=False)
    assert missed is not None
    assert missed.items == ()
    assert remembered(collect, window, fired=True) == window
    assert remembered(LEADING, window, fired=False) == window
    assert remembered(collect, None, fired=False) is None
