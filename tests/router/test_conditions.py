"""Conditions: what CEL answers here, and how its errors read."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.router.conditions import ConditionError, Expression, Last

EVENT = {
    "ts_utc": "2026-11-23T09:12:00.123456Z",
    "payload": {"unit": "a.service", "n": 3, "f": 1.5, "nothing": None, "list": [1, "x"]},
}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('event.payload.unit.endsWith(".service")', True),
        ("has(event.payload.unit) && !has(event.payload.nope)", True),
        ("size(event.payload.list) == 2", True),
        ('event.payload.unit.matches("^a[.]serv")', True),
        ('"x" in event.payload.list', True),
        ("event.payload.n == 3.0 && event.payload.f < 2", True),
        ("event.payload.nothing == null", True),
        ('timestamp(event.ts_utc) > timestamp("2026-01-01T00:00:00Z")', True),
        ('duration("1m") + duration("30s")', timedelta(seconds=90)),
        ("event.payload.list.exists(item, item == 1)", True),
        ("event.payload.nope == 1 || true", True),
        ("event.payload.n + 1", 4),
    ],
)
def test_answers(text: str, answer: Any) -> None:
    """What profiles use of CEL is answered as its specification says."""
    assert Expression(text).evaluate({"event": EVENT}) == answer


@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ("event.payload.unit.endsWith(", "the expression ends too early", 29),
        ("", "the expression ends too early", 1),
        ("event.x = 1", "a single = is no operator; == compares", 9),
        ("a b", "unexpected 'b'", 3),
        ('event.x == "open', 'the string "open has no end', 12),
        ("event.payload.null", "null is a word of CEL's own", 15),
        ("(" * 200 + "1" + ")" * 200, "recursion limit", 97),
    ],
)
def test_syntax_errors(text: str, reason: str, column: int) -> None:
    """A text that is no CEL is refused with one readable line and the column."""
    with pytest.raises(ConditionError) as caught:
        Expression(text)
    assert caught.value.reason.startswith(reason)
    assert caught.value.column == column
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("event.payload.nope == 1", "no field event.payload.nope; has(event.payload.nope) asks"),
        ("evnt.payload", "unknown name 'evnt'; known here: event"),
        ("event.payload.unit.shout()", "unknown function shout()"),
        ("size(event.payload.n)", "size() does not take arguments of these types"),
        ("event.payload.n / 0", "division by zero"),
        ('event.payload.n > "1"', "an operator, function or field does not fit"),
        ("event.payload.list[7]", "index out of bounds: 7"),
        ('event.payload.unit.matches("[")', "Function 'matches' error"),
    ],
)
def test_unanswerable(text: str, reason: str) -> None:
    """A condition without an answer says why in one line."""
    with pytest.raises(ConditionError) as caught:
        Expression(text).evaluate({"event": EVENT})
    assert caught.value.reason.startswith(reason)
    assert caught.value.column is None
    assert "\n" not in str(caught.value)


def test_value_without_a_cel_type() -> None:
    """A variable that CEL has no type for is an error, unless the expression does not read it."""
    assert Expression("1 + 1").evaluate({"odd": object()}) == 2
    with pytest.raises(ConditionError, match="no CEL type"):
        Expression("odd").evaluate({"odd": object()})


def test_names() -> None:
    """An expression knows the names that it reads, and leaves out those that its macros bind."""
    found = Expression("event.a.exists(x, x == vars.y) && host == run.id").names
    assert found == {"event", "vars", "host", "run"}


READY, CALM = Last("mesh.ready"), Last("mesh.calm", anywhere=True)


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ('last("mesh.ready") != null', (READY,)),
        ("last('mesh.ready').payload.n > 1", (READY,)),
        ('last ( "mesh.calm" , "any" ) != null', (CALM,)),
        ("last('mesh.calm','any').host == last(\"mesh.ready\").host", (CALM, READY)),
        ('last("mesh.ready").a == last("mesh.ready").b', (READY,)),
        ('last( "mesh.ready").a == last("mesh.ready").b', (READY,)),
        ('last("mesh.ready") == last("mesh.ready", "any")', (READY, Last("mesh.ready", True))),
        ("event.last == 1", ()),
        ('event.last("mesh.ready")', ()),
        ('outlast("mesh.ready")', ()),
        ("event.x == \"last('mesh.ready')\"", ()),
    ],
)
def test_what_last_is_read(text: str, last: tuple[Last, ...]) -> None:
    """An expression knows every `last(…)` that it needs; text in a string is none."""
    expression = Expression(text)
    assert expression.last == tuple(sorted(last))
    assert not any(name.startswith("_last") for name in expression.names)


@pytest.mark.parametrize("call", ['last("mesh.ready")', 'last("mesh.ready", "any")'])
def test_last_is_named_as_it_is_written(call: str) -> None:
    """The canonical form of a `last(…)` reads as the same one."""
    [one] = Expression(f"{call} != null").last
    assert one.call == call


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('last("mesh.ready").payload.n == 3', True),
        ('last("mesh.calm", "any") == null', True),
        ('last("mesh.calm", "any") != null && last("mesh.calm", "any").payload.n == 3', False),
        ('last("mesh.ready").payload.n + last("mesh.ready").payload.n', 6),
        ('event.payload.n == last("mesh.ready").payload.n', True),
        ('event.payload.list.exists(x, x == last("mesh.ready").payload.n - 2)', True),
        ('has(last("mesh.ready").payload.nope)', False),
    ],
)
def test_last(text: str, answer: Any) -> None:
    """`last(…)` is the event that it stands for, as a map, or null."""
    last = {READY: {"payload": {"n": 3, "m": 4}}}
    assert Expression(text).evaluate({"event": EVENT}, last) == answer


def test_last_that_is_not_there_is_named() -> None:
    """A condition that needs an event which has not come yet says how to ask for it."""
    with pytest.raises(ConditionError) as caught:
        Expression('last("mesh.calm", "any").payload.n == 1').evaluate({"event": EVENT})
    assert caught.value.reason == (
        'there is no mesh.calm yet; last("mesh.calm", "any") != null asks for it'
    )


def test_members_of_last() -> None:
    """An expression knows which members of each `last(…)` it reads; none stands for all of it."""
    paths = Expression(
        'last("mesh.ready").payload.n == event.x && last("mesh.calm", "any") != null'
    )
    assert paths.paths() == {READY: (("payload", "n"),), CALM: (), "event": (("x",),)}


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("last() != null", 1),
        ("event.x == last(mesh.ready)", 12),
        ('last("Mesh.Ready")', 1),
        ('last("mesh.ready", "all")', 1),
        ('true && last("mesh.>")', 9),
        ("last(\"mesh.ready')", 1),
    ],
)
def test_errors_of_last(text: str, column: int) -> None:
    """A `last(…)` without one topic in quotes is refused with its column."""
    with pytest.raises(ConditionError) as caught:
        Expression(text)
    assert caught.value.column == column
    assert caught.value.reason.startswith("last() takes a topic in quotes")


def test_columns_after_last() -> None:
    """An error behind a `last(…)` has the column of the text as it was written."""
    with pytest.raises(ConditionError) as caught:
        Expression('last("mesh.ready") != null && event.x = 1')
    assert caught.value.column == 39


def test_now() -> None:
    """`now` is a time that can be compared and taken apart."""
    now = datetime(2026, 11, 23, 3, 12, tzinfo=UTC)
    expression = Expression('now.getHours() == 3 && now - timestamp(event.ts_utc) < duration("1h")')
    assert expression.names == {"now", "event"}
    assert expression.evaluate({"event": EVENT, "now": now}) is True


@given(st.text(max_size=30))
def test_any_text(text: str) -> None:
    """Any text is an expression or a ConditionError."""
    with contextlib.suppress(ConditionError):
        Expression(text).evaluate({"event": EVENT})


def test_import_is_light() -> None:
    """The CEL library is loaded by the first expression, and without its own command line."""
    code = (
        "import sys; from opsmesh.router.conditions import Expression;"
        "assert 'cel.cel' not in sys.modules;"
        "Expression('1'); assert 'cel.cel' in sys.modules;"
        "assert 'prompt_toolkit' not in sys.modules;"
        "import cel; assert cel.evaluate('1 + 1') == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
