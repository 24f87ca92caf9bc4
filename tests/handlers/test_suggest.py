"""Suggestions: what tells false positives from other runs, and that it is what was backtested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from tests.conftest import mesh_client, run
from tests.handlers.backtests import message

from opsmesh.handlers.backtest.backtest import Backtest
from opsmesh.handlers.backtest.source import Stored
from opsmesh.handlers.feedback import feedback
from opsmesh.handlers.feedback.condition_text import excluding, field, literal
from opsmesh.handlers.feedback.feedback import Verdict
from opsmesh.handlers.feedback.suggest import LONGEST, Report, Tally, suggest
from opsmesh.handlers.live import firing
from opsmesh.handlers.profiles.profile import Profile, from_source
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import redaction
from opsmesh.router.conditions import Expression
from opsmesh.router.publish import Publisher
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import complete, decode, subject

FALSE: Verdict = "false_positive"
USEFUL: Verdict = "useful"

#: An event's time in seconds and payload, and what was said of its run.
Told = tuple[float, dict[str, Any], Verdict | None]


def profile(**more: Any) -> Profile:
    """A profile that fires for every event of a.b, unless told otherwise."""
    return from_source("note", {"on": "a.b", "actions": [{"emit": "b.c"}], **more})


def runs_of(one: Profile, messages: Iterable[Stored]) -> list[Run]:
    """The runs that the profile would have begun."""
    stored = {m.seq: m for m in messages}
    tested = Backtest([one.rule], host=None)
    for m in stored.values():
        tested.take(m)
    found = []
    for fired in tested.end().profiles[0].firings:
        m = stored[fired.event_seq]
        new = firing.new_run(
            one,
            decode(m.data, stored=(EVENTS, m.seq, m.time_us)),
            consumer="profile-note",
            host="dev",
            seq=m.seq,
            stored_us=m.time_us,
        )
        found.append(new)
    return found


def reading(messages: Iterable[Stored]) -> Callable[[Callable[[str], bool]], Iterator[Stored]]:
    """Reads them, as often as wanted."""
    kept = list(messages)

    def read(wants: Callable[[str], bool]) -> Iterator[Stored]:
        return (m for m in kept if wants(decode(m.data).topic))

    return read


def suggested(one: Profile, *told: Told) -> Report:
    """What is suggested after these events."""
    messages = [message(n, at, **payload) for n, (at, payload, _) in enumerate(told, 1)]
    said = {f"event-{n}": verdict for n, (_, _, verdict) in enumerate(told, 1)}
    runs = runs_of(one, messages)
    verdicts = {r.run_id: verdict for r in runs if (verdict := said[r.event_id]) is not None}
    return suggest(one, runs, verdicts, reading(messages))


def clauses(report: Report, kind: str = "where") -> list[str]:
    """The clauses of one kind, the best first."""
    return [found.clause for found in report.suggestions if found.kind == kind]


def spaced(*told: tuple[dict[str, Any], Verdict | None]) -> list[Told]:
    """A day between any two."""
    return [(n * 86400, payload, verdict) for n, (payload, verdict) in enumerate(told)]


def test_value_of_a_field() -> None:
    """The value that false positives share and no useful run has is excluded, and counted."""
    report = suggested(
        profile(),
        *spaced(
            *[({"unit": "x", "n": 1}, FALSE)] * 7,
            ({"unit": "y", "n": 1}, FALSE),
            *[({"unit": "y", "n": 1}, USEFUL)] * 5,
            *[({"unit": "x", "n": 1}, None)] * 2,
            *[({"unit": "z", "n": 1}, None)] * 38,
        ),
    )
    assert report.runs == Tally(false_positives=8, useful=5, unjudged=40)
    best = report.suggestions[0]
    assert best.clause == 'event.payload.unit != "x"'
    assert best.removed == Tally(false_positives=7, useful=0, unjudged=2)
    assert (report.firings, best.firings, best.new) == (53, 44, 0)
    assert best.profile.rule.where == Expression(best.clause)


def test_several_values() -> None:
    """Several values of one field are excluded as a list."""
    report = suggested(
        profile(),
        *spaced(
            *[({"unit": "x"}, FALSE)] * 3,
            *[({"unit": "y"}, FALSE)] * 2,
            *[({"unit": "z"}, USEFUL)] * 3,
        ),
    )
    assert '!(event.payload.unit in ["x", "y"])' in clauses(report)


def test_beginning_of_a_text() -> None:
    """Texts that differ and begin alike are excluded by their beginning."""
    report = suggested(
        profile(),
        *spaced(
            *[({"nodeid": f"tests/slow/{name}.py"}, FALSE) for name in ("zeta", "beta", "eta")],
            *[({"nodeid": f"tests/{name}.py"}, USEFUL) for name in ("zeta", "beta", "eta")],
        ),
    )
    assert clauses(report)[0] == '!event.payload.nodeid.startsWith("tests/slow/")'


def test_threshold() -> None:
    """Numbers below those of every useful run are excluded by a threshold."""
    numbers = [(3, FALSE), (40, USEFUL), (1.5, FALSE), (90, None), (2, FALSE), (30, USEFUL)]
    report = suggested(profile(), *spaced(*[({"ms": ms}, verdict) for ms, verdict in numbers]))
    assert clauses(report)[0] == "event.payload.ms > 3"
    assert report.suggestions[0].removed == Tally(false_positives=3, useful=0, unjudged=0)


def test_what_only_grows_explains_nothing() -> None:
    """A number that counts up separates runs by their time, and is not suggested."""
    report = suggested(
        profile(),
        *spaced(*[({"pid": n}, FALSE) for n in range(3)], *[({"pid": n}, None) for n in (5, 8, 9)]),
    )
    assert report.suggestions == []


def test_field_of_some_events() -> None:
    """An event without the field goes on to fire."""
    report = suggested(
        profile(),
        *spaced(
            *[({"unit": "x"}, FALSE)] * 2,
            *[({}, USEFUL)] * 2,
            *[({}, None)] * 3,
        ),
    )
    assert clauses(report)[0] == '!(has(event.payload.unit) && event.payload.unit == "x")'
    assert report.suggestions[0].removed.unjudged == 0


def test_where_stays() -> None:
    """What the profile asks for already is asked for still, whatever its operators and comments."""
    report = suggested(
        profile(where="event.payload.n == 1 || event.payload.n == 2 // both"),
        *spaced(
            *[({"n": 1, "unit": "x"}, FALSE)] * 2,
            *[({"n": 2, "unit": "y"}, USEFUL)] * 2,
            ({"n": 3, "unit": "y"}, None),
        ),
    )
    assert report.runs.unjudged == 0
    assert report.firings == 4
    assert report.suggestions[0].firings == 2


def test_longer_window() -> None:
    """False positives that follow another run closely are taken into its burst."""
    told: list[Told] = []
    for n in range(4):
        at = n * 86400.0
        told += [(at, {}, USEFUL), (at + 40, {}, FALSE)]
    report = suggested(profile(debounce={"window": "10s"}), *told)
    best = report.suggestions[0]
    assert (best.kind, best.clause) == ("debounce", "window: 1m")
    assert best.removed == Tally(false_positives=4, useful=0, unjudged=0)
    assert (report.firings, best.firings) == (8, 4)
    assert best.profile.rule.debounce is not None
    assert best.profile.rule.debounce.window_us == 60_000_000


def test_key_of_the_window() -> None:
    """A longer window that would lose a useful run of another unit is keyed by the unit."""
    told: list[Told] = []
    for n in range(4):
        at = n * 86400.0
        unit = "xy"[n % 2]
        told += [(at, {"unit": unit}, USEFUL), (at + 40, {"unit": unit}, FALSE)]
        told += [(at + 45, {"unit": "yx"[n % 2]}, USEFUL)]
    report = suggested(profile(debounce={"window": "1s"}), *told)
    assert clauses(report, "debounce") == [
        "window: 1m, key: [topic, workspace, payload.unit]",
    ]


def test_useful_runs_are_kept() -> None:
    """What would lose a useful run is not suggested, however many false positives it removes."""
    report = suggested(
        profile(),
        *spaced(*[({"unit": "x"}, FALSE)] * 9, ({"unit": "x"}, USEFUL), ({"unit": "y"}, None)),
    )
    assert report.suggestions == []


def test_what_removes_everything_is_no_suggestion() -> None:
    """A clause that no run passes is a disabled profile."""
    report = suggested(profile(), *spaced(*[({"unit": "x"}, FALSE)] * 5))
    assert report.suggestions == []


def test_what_no_longer_fires_is_left_out() -> None:
    """Runs that the present text would not begin again are not learnt from."""
    messages = [message(n, n * 86400, unit=unit) for n, unit in enumerate("xxyyz", 1)]
    old = runs_of(profile(), messages)
    verdicts = dict.fromkeys([r.run_id for r in old[:3]], FALSE)
    report = suggest(profile(where='event.payload.unit != "x"'), old, verdicts, reading(messages))
    assert report.runs.false_positives == 1
    assert (report.unused, report.suggestions) == (2, [])


@given(text=st.text(), other=st.text())
def test_any_text_as_a_literal(text: str, other: str) -> None:
    """A clause about any text holds for every other text, and not for that one."""
    condition = Expression(excluding(("payload", "unit"), f" == {literal(text)}"))
    for value in (text, other):
        event = {"payload": {"unit": value}}
        assert condition.evaluate({"event": event}) is (value != text)


@given(text=st.text(min_size=1), before=st.text(), after=st.text())
def test_any_text_as_a_part(text: str, before: str, after: str) -> None:
    """Beginning, end and list mean for any text what they mean in Python."""
    value = before + text + after
    event = {"payload": {"unit": value}}
    for test, met in (
        (f".startsWith({literal(text)})", value.startswith(text)),
        (f".endsWith({literal(text)})", value.endswith(text)),
        (f" in [{literal(text)}, {literal(before)}]", value in (text, before)),
    ):
        for sure in (True, False):
            condition = Expression(excluding(("payload", "unit"), test, sure=sure))
            assert condition.evaluate({"event": event}) is not met


@given(name=st.text(min_size=1), value=st.text() | st.booleans() | st.integers(-9, 9))
def test_any_name_of_a_field(name: str, value: Any) -> None:
    """A clause finds the field of any name, and an event without it meets the clause."""
    test = f" == {literal(value)}"
    condition = Expression(excluding(("payload", "inner", name), test, sure=False))
    assert condition.evaluate({"event": {"payload": {"inner": {name: value}}}}) is False
    assert condition.evaluate({"event": {"payload": {"inner": {}}}}) is True
    assert condition.evaluate({"event": {"payload": {}}}) is True


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_any_number_as_a_literal(number: float) -> None:
    """A threshold at any number is met by that number."""
    for test in (" <= ", " >= ", " == "):
        condition = Expression(excluding(("payload", "n"), test + literal(number)))
        assert condition.evaluate({"event": {"payload": {"n": number}}}) is False


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("workspace",), "event.workspace"),
        (("payload", "unit"), "event.payload.unit"),
        (("payload", "exit-code"), 'event.payload["exit-code"]'),
        (("payload", "in", "a"), 'event.payload["in"].a'),
        (("payload", 'a"\n'), 'event.payload["a\\"\\u000a"]'),
    ],
)
def test_field(path: tuple[str, ...], expected: str) -> None:
    """A field is written as people write it, where CEL allows it."""
    assert field(path) == expected


@given(st.text(max_size=LONGEST), st.text())
def test_suggestion_for_any_text(bad: str, good: str) -> None:
    """What is suggested for any text of false positives that people would read removes them and
    nothing else."""
    if bad == good:
        return
    report = suggested(
        profile(), *spaced(*[({"unit": bad}, FALSE)] * 3, *[({"unit": good}, USEFUL)] * 3)
    )
    for found in report.suggestions:
        assert found.removed == Tally(false_positives=3, useful=0, unjudged=0)
    assert report.suggestions


async def happen(client: Client, one: Profile, *units: str) -> list[Run]:
    """Events of these units are stored, and the profile runs for each."""
    defaults = {
        **{"host": "dev", "session_id": "1", "workspace": "/src", "source": "test"},
        **{"component": "test", "severity": "error"},
    }
    made = []
    for unit in units:
        raw = {"topic": "a.b", "payload": {"unit": unit}}
        data, event = complete(raw, defaults=defaults, now_us=times.now_us())
        ack = await Publisher(client).publish(subject("dev", "a.b"), data, msg_id=event.id)
        new = firing.new_run(
            one, event, consumer="c", host="dev", seq=ack.seq, stored_us=times.now_us()
        )
        assert await Ledger(client).create(new) is not None
        made.append(new)
    return made


def test_from_the_mesh(nats_server: EmbeddedServer) -> None:
    """Runs of the ledger, judged through the stream, with their stored events give a clause."""

    async def body() -> None:
        one = profile()
        async with mesh_client() as client:
            rules = redaction.load(Settings())
            runs = await happen(client, one, "x", "y", "x", "y", "z")
            for judged, verdict in zip(runs, (FALSE, USEFUL, FALSE, USEFUL), strict=False):
                await feedback.record(client, judged, verdict, host="dev", redactor=rules)
            verdicts = feedback.newest(await feedback.judgements(client))
            remembered = feedback.counted([r async for r in Ledger(client).runs("note")])
            messages = []
            async for msg in scan(client, EVENTS):
                where = delivery(msg.reply)
                us = where.timestamp_ns // 1000
                messages.append(Stored(EVENTS, where.stream_seq, us, msg.data))
            report = suggest(one, remembered, verdicts, reading(messages))
            assert report.runs == Tally(false_positives=2, useful=2, unjudged=1)
            assert report.suggestions[0].clause == 'event.payload.unit != "x"'
            assert report.suggestions[0].firings == 3

    run(body())
