"""Conditions: what CEL answers here, and how its errors read."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.router.conditions import ConditionError, Expression

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
