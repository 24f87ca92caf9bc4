"""The decision engine: pure, ordered, and with a reason for every answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.router.conditions import Expression
from opsmesh.router.decide import (
    Debounce,
    Decision,
    Rule,
    State,
    Window,
    debounce_key,
    decide,
    topic_matches,
)
from opsmesh.schemas.envelope import Event

S = 1_000_000


def event(topic: str = "service.start.failed", event_id: str = "e1", **more: Any) -> Event:
    facts: dict[str, Any] = {
        "ts_utc": "2026-11-23T09:12:00.000000Z",
        "source": "journal",
        "component": "systemd",
        "severity": "error",
        "correlation_id": "c",
        "host": "laptop",
        "session_id": "",
        "workspace": "work",
        "payload": {"unit": "backup.service", "n": 3},
    }
    return Event(topic=topic, id=event_id, **{**facts, **more})


def rule(**more: Any) -> Rule:
    return Rule(**{"name": "triage", "hash": "h", "on": ("service.>",), **more})


def outcome(rule: Rule, event: Event, state: State | None = None, now_us: int = 0) -> Decision:
    return decide(rule, event, state or State(), now_us=now_us, host="laptop")[0]


def test_fires_on_its_topic() -> None:
    """An enabled profile fires on a topic that it listens to."""
    decided = outcome(rule(), event())
    assert (decided.outcome, decided.clause) == ("fire", "on")


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("service.start.failed", "service.start.failed", True),
        ("service.*.failed", "service.start.failed", True),
        ("service.*", "service.start.failed", False),
        ("service.>", "service.start.failed", True),
        ("service.>", "service", False),
        ("*.start.*", "service.start.failed", True),
        (">", "service.start.failed", True),
        ("service.start", "service.start.failed", False),
        ("servic.", "service", False),
    ],
)
def test_topic_wildcards(pattern: str, topic: str, matches: bool) -> None:
    """Patterns match as NATS subjects do."""
    assert topic_matches(pattern, topic) is matches


def test_other_topics_are_filtered() -> None:
    """A topic that the profile does not listen to is filtered by `on`, and named."""
    decided = outcome(rule(), event("python.test.failed"))
    assert (decided.outcome, decided.clause) == ("filtered", "on")
    assert "python.test.failed" in decided.reason


def test_where_decides_with_the_values_it_read() -> None:
    """A condition that is false filters, and the decision holds the values of its fields."""
    where = Expression('event.payload.unit.endsWith(".timer") && event.severity == "error"')
    decided = outcome(rule(where=where), event())
    assert (decided.outcome, decided.clause) == ("filtered", "where")
    assert decided.values == {"event.payload.unit": "backup.service", "event.severity": "error"}


def test_true_where_is_the_reason_to_fire() -> None:
    """A decision to fire names the condition that was true."""
    decided = outcome(rule(where=Expression("event.payload.n > 2")), event())
    assert (decided.outcome, decided.clause, decided.values) == (
        "fire",
        "where",
        {"event.payload.n": 3},
    )


def test_condition_on_a_missing_field_does_not_fire() -> None:
    """A condition that reads a field which is not there filters, and says so."""
    decided = outcome(rule(where=Expression("event.payload.unti == 'x'")), event())
    assert decided.outcome == "filtered"
    assert "unti" in decided.reason


def test_condition_that_is_no_boolean_does_not_fire() -> None:
    """Only true lets an event through: a number is not taken for a yes."""
    assert outcome(rule(where=Expression("event.payload.n")), event()).outcome == "filtered"


def test_conditions_read_vars() -> None:
    """`vars` of the profile are there for its condition."""
    where = Expression("event.payload.n > vars.least")
    assert outcome(rule(where=where, vars={"least": 2}), event()).outcome == "fire"
    assert outcome(rule(where=where, vars={"least": 3}), event()).outcome == "filtered"


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
    assert (decided.outcome == "fire") is fires
    assert fires or decided.clause == "run_on"


def test_hops_stop_a_loop() -> None:
    """An event that is further from its first cause than max_hops is suppressed."""
    assert outcome(rule(max_hops=2), event(hops=2)).outcome == "fire"
    decided = outcome(rule(max_hops=2), event(hops=3))
    assert (decided.outcome, decided.clause) == ("suppressed", "hops")


def test_disabled_and_shadow_are_suppressed() -> None:
    """A disabled profile decides nothing else; a shadow one says what it would have done."""
    assert outcome(rule(state="disabled"), event()).outcome == "suppressed"
    shadow = outcome(rule(state="shadow"), event())
    assert (shadow.outcome, shadow.clause) == ("suppressed", "state")
    assert "would have fired" in shadow.reason
    assert outcome(rule(state="shadow"), event("a.b")).outcome == "filtered"


def test_seen_event_is_a_duplicate() -> None:
    """An event that has a run already is a duplicate, by its id."""
    decided = outcome(rule(), event(), State(seen=True))
    assert (decided.outcome, decided.values) == ("duplicate", {"id": "e1"})


def series(debounce: Debounce, *moments_s: float) -> list[str]:
    state = State()
    outcomes: list[str] = []
    for number, moment in enumerate(moments_s):
        decision, state = decide(
            rule(debounce=debounce),
            event(event_id=f"e{number}"),
            state,
            now_us=round(moment * S),
            host="laptop",
        )
        outcomes.append(decision.outcome)
    return outcomes


def test_debounce_fires_once_a_burst() -> None:
    """A burst fires with its first event; the next one fires after a quiet window."""
    assert series(Debounce(window_us=30 * S), 0, 10, 35, 60, 91) == [
        "fire",
        "debounced",
        "debounced",
        "debounced",
        "fire",
    ]


def test_max_wait_bounds_the_silence() -> None:
    """A burst that never ends fires again after max_wait."""
    debounce = Debounce(window_us=30 * S, max_wait_us=50 * S)
    assert series(debounce, 0, 20, 40, 60, 80) == [
        "fire",
        "debounced",
        "debounced",
        "fire",
        "debounced",
    ]


def test_delivered_again_is_decided_alike() -> None:
    """The event that opened a burst fires again when it is delivered again."""
    window = Window(fired_us=0, fired_id="e1", last_us=9 * S)
    decided, state = decide(
        rule(debounce=Debounce(window_us=30 * S)),
        event(),
        State(window=window),
        now_us=10 * S,
        host="laptop",
    )
    assert decided.outcome == "fire"
    assert state.window == window


def test_debounce_key_is_topic_and_workspace() -> None:
    """Bursts are told apart by topic and workspace, and by whatever the profile names."""
    by_default = rule(debounce=Debounce(window_us=S))
    by_unit = rule(debounce=Debounce(window_us=S, key=("payload.unit",)))
    other = event(workspace="play")
    assert debounce_key(by_default, event()) != debounce_key(by_default, other)
    assert debounce_key(by_unit, event()) == debounce_key(by_unit, other)
    assert debounce_key(by_unit, event(payload={"unit": "x"})) != debounce_key(by_unit, event())


def test_filtered_event_leaves_the_window_alone() -> None:
    """What `where` keeps out does not lengthen a burst."""
    window = Window(fired_us=0, fired_id="e0", last_us=0)
    filtered = rule(where=Expression("false"), debounce=Debounce(window_us=30 * S))
    _, state = decide(filtered, event(), State(window=window), now_us=10 * S, host="laptop")
    assert state.window == window


@given(
    gaps=st.lists(st.integers(0, 100), min_size=1, max_size=40),
    window=st.integers(1, 50),
    max_wait=st.none() | st.integers(1, 120),
)
def test_debounce_spacing_holds(gaps: list[int], window: int, max_wait: int | None) -> None:
    """Whatever the gaps: firings are a quiet window or max_wait apart, and replay alike."""
    debounce = Debounce(
        window_us=window * S, max_wait_us=None if max_wait is None else max_wait * S
    )
    moments = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    outcomes = series(debounce, *moments)
    assert outcomes == series(debounce, *moments)
    assert outcomes[0] == "fire"
    fired_at = moments[0]
    for i in range(1, len(moments)):
        quiet = gaps[i] >= window
        waited = max_wait is not None and moments[i] - fired_at >= max_wait
        assert (outcomes[i] == "fire") == (quiet or waited)
        if outcomes[i] == "fire":
            fired_at = moments[i]


def test_equal_decisions_are_equal_bytes() -> None:
    """The same rule, event and state give the same bytes, and the bytes the same decision."""
    where = Expression("event.payload.n > 2")
    first = outcome(rule(where=where), event()).encode()
    second = outcome(rule(where=Expression("event.payload.n > 2")), event()).encode()
    assert first == second
    assert msgspec.json.decode(first, type=Decision).encode() == first
