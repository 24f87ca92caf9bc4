"""Decisions in words: conditions taken apart, windows, a verdict for every clause."""

from __future__ import annotations

import random

import pytest
from tests.handlers import generated

from opsmesh.handlers.explain import wording
from opsmesh.handlers.explain.conjuncts import conjuncts
from opsmesh.handlers.explain.verdicts import ORDER, Verdict, verdicts
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.profile import Profile, parse
from opsmesh.router.conditions import Expression
from opsmesh.router.decide import Decision
from opsmesh.router.decider import Decider
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event

HOST = "dev"
SECOND = 1_000_000
NOON = 1_795_424_400 * SECOND


def profiles(text: str) -> list[Profile]:
    """The profiles of a file's text."""
    found = parse(yamlfile.parse(text.encode(), file="profiles.yaml"))
    assert not found.errors
    return list(found.profiles.values())


def event(number: int, topic: str = "my.a.done", **payload: object) -> Event:
    """An event on the host that decides."""
    event_id = f"01a210b5-b40d-7347-aae7-{number:012d}"
    return Event(
        topic=topic,
        ts_utc="2026-11-23T09:00:00.000000Z",
        source="test",
        component="test",
        severity="error",
        correlation_id=event_id,
        host=HOST,
        session_id="",
        workspace="w",
        payload=dict(payload),
        id=event_id,
    )


def told(
    clauses: str, events: list[tuple[float, Event]], *, until: float = 0
) -> list[tuple[Decision, dict[str, Verdict]]]:
    """Every decision about events at these seconds, with its verdicts by clause."""
    (profile,) = profiles(
        f"profiles: {{p: {{on: my.a.done, actions: [{{command: ['true']}}], {clauses}}}}}"
    )
    decider = Decider(profile.rule, host=HOST)
    by_id = {one.id: one for _, one in events}
    made: list[Decision] = []
    for seq, (at, one) in enumerate(events, 1):
        stored_us = NOON + round(at * SECOND)
        made += decider.advance(stored_us)
        decision = decider.decide(one, seq=seq, stored_us=stored_us)
        assert decision is not None
        made.append(decision)
    made += decider.advance(NOON + round(until * SECOND))
    return [
        (d, {v.clause: v for v in verdicts(profile.rule, d, by_id[d.event_id], {})}) for d in made
    ]


@pytest.mark.parametrize(
    ("condition", "parts"),
    [
        ("event.a == 1", ["event.a == 1"]),
        ("event.a == 1 && event.b", ["event.a == 1", "event.b"]),
        ('event.a == "x && y" && event.b', ['event.a == "x && y"', "event.b"]),
        ("event.a && (event.b || event.c)", ["event.a", "(event.b || event.c)"]),
        ("event.a && event.b || event.c", ["event.a && event.b || event.c"]),
        ("event.a && event.b ? true : false", ["event.a && event.b ? true : false"]),
        ("[1].all(x, x > 0 && x < 2)", ["[1].all(x, x > 0 && x < 2)"]),
        ('event.a == r"\\" && event.b', ['event.a == r"\\" && event.b']),
        ("event.a &&\n  event.b", ["event.a", "event.b"]),
        ('last("a.b") != null && event.b', ['last("a.b") != null', "event.b"]),
    ],
)
def test_conjuncts(condition: str, parts: list[str]) -> None:
    """Only a condition that is certainly joined by && at its top is taken apart."""
    assert [one.text for one in conjuncts(Expression(condition))] == parts


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0s"),
        (400, "under 1ms"),
        (250_000, "250ms"),
        (2_500_000, "2.5s"),
        (90_000_400, "1m30s"),
        (3 * 3600 * SECOND, "3h"),
        (50 * 3600 * SECOND, "2d2h"),
    ],
)
def test_spans(us: int, text: str) -> None:
    """A span is told as finely as a person needs it."""
    assert wording.span(us) == text


def test_parts_of_a_condition() -> None:
    """Each part of a condition has its own truth and values; one without an answer says why."""
    ((_, found),) = told(
        "where: 'event.payload.n > 3 && event.payload.k == 1 && event.payload.no'",
        [(0, event(1, n=2, k=1))],
    )
    where = found["where"]
    assert (where.answer, where.decided) == ("stopped", True)
    assert [part.true for part in where.parts] == [False, True, None]
    assert where.parts[0].values == {"event.payload.n": 2}
    assert "event.payload.no" in where.parts[2].reason
    assert found["handled"].answer == "not_asked"
    assert found["debounce"].answer == "not_set"


def test_what_else_stands_in_the_way() -> None:
    """A clause that was not asked any more is asked now, when it needs nothing but the event."""
    ((_, found),) = told("run_on: elsewhere, where: event.payload.n > 3", [(0, event(1, n=2))])
    assert (found["run_on"].answer, found["run_on"].decided) == ("stopped", True)
    assert found["where"].text == "not asked; no as well: event.payload.n > 3 is false"
    assert found["hops"].text == "not asked; would have passed"


def test_leading_burst() -> None:
    """The first event of a burst passes, the next is held back with the window that it saw."""
    first, second, third = told(
        "debounce: {window: 10s, key: payload.k}",
        [(0, event(1, k=1)), (2, event(2, k=1)), (20, event(3, k=1))],
    )
    assert first[1]["debounce"].text.startswith("the first of its burst: none in the 10s before")
    assert "[payload.k=1]" in first[1]["debounce"].text
    assert second[1]["debounce"].answer == "stopped"
    assert "the last 2s before it; the window is 10s" in second[1]["debounce"].text
    assert third[1]["debounce"].answer == "passed"


def test_trailing_burst() -> None:
    """An event of a burst waits; when the time has come the burst is told."""
    first, second, fired = told(
        "debounce: {window: 10s, edge: trailing}", [(0, event(1)), (2, event(2))], until=60
    )
    due = times.clock(NOON + 12 * SECOND)
    assert first[1]["debounce"].answer == "waits"
    assert f"2 events since {times.clock(NOON)}, fires at {due}" in second[1]["debounce"].text
    assert fired[0].outcome == "fire"
    assert "the burst of 2 events" in fired[1]["debounce"].text
    assert fired[1]["where"].answer == "not_set"
    assert fired[1]["on"].answer == "earlier"


def test_collected_then_throttled() -> None:
    """A timer's firing that the throttle stops says so, and the stage before it that it is over."""
    found = told(
        "collect: {window: 10s, max: 2}, throttle: {at_most: 1, per: 1h}",
        [(0, event(1)), (1, event(2)), (2, event(3))],
        until=60,
    )
    assert found[0][1]["collect"].text.endswith("or with 2")
    assert "as many as one run takes" in found[1][1]["collect"].text
    assert found[1][1]["throttle"].text == "number 1 of at most 1 in 1h"
    late, clauses = found[3]
    assert (late.timer is not None, late.outcome) == (True, "throttled")
    assert "its 10s is over" in clauses["collect"].text
    assert clauses["throttle"].answer == "stopped"
    free = times.clock(NOON + 3601 * SECOND)
    assert clauses["throttle"].text.endswith(f"at most 1 pass; the next from {free} on")


def test_absence() -> None:
    """An `unless` waits, goes on waiting, and is ended by what it waits for."""
    waits, again, ended = told(
        "unless: {on: my.b.done, within: 1m}",
        [(0, event(1)), (5, event(2)), (9, event(3, "my.b.done"))],
    )
    due = times.clock(NOON + 60 * SECOND)
    assert waits[1]["unless"].text == f'fires at {due} unless my.b.done comes [host="dev"]'
    assert "goes on" in again[1]["unless"].text
    assert again[1]["unless"].answer == "waits"
    assert ended[1]["unless"].answer == "stopped"
    assert "ends the wait" in ended[1]["unless"].text
    assert ended[1]["on"].answer == "not_asked"


@pytest.mark.parametrize("seed", range(6))
def test_words_agree_with_decisions(seed: int) -> None:
    """Over random profiles and events the clause that a decision names is the one whose verdict
    says no, and a firing has none that does."""
    chance = random.Random(seed)
    for profile in profiles(generated.profiles(seed, 14)):
        decider = Decider(profile.rule, host=HOST)
        events: dict[int, Event] = {}
        made: list[Decision] = []
        at_us = NOON
        for seq, one in enumerate(generated.events(seed, 150, HOST), 1):
            at_us += chance.randint(0, 80_000)
            made += decider.advance(at_us)
            decision = decider.decide(one, seq=seq, stored_us=at_us)
            events[seq] = one
            made += [decision] if decision is not None else []
        made += decider.advance(at_us + SECOND)
        for decision in made:
            seqs = {one: decision.last.get(one.call) for one in profile.rule.last}
            last = {one: events[seq] for one, seq in seqs.items() if seq is not None}
            found = verdicts(profile.rule, decision, events[decision.event_seq], last)
            _agree(decision, found)


def _agree(decision: Decision, found: tuple[Verdict, ...]) -> None:
    assert tuple(one.clause for one in found) == ORDER
    noes = [one for one in found if one.answer in ("stopped", "waits")]
    if decision.fires:
        assert noes == []
        return
    assert [one.clause for one in noes] == [decision.clause]
    assert noes[0].decided
    held = noes[0].answer == "waits"
    assert held <= (decision.outcome in ("waiting", "collecting", "debounced"))


def test_values() -> None:
    """A value is shown as JSON, cut when it is long."""
    assert wording.value("a\nb") == '"a\\nb"'
    assert len(wording.value("x" * 500)) == wording.VALUE_MAX
    assert wording.value(None) == "absent"
