"""Only what an expression reads is converted, and that changes no answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.router import members
from opsmesh.router.conditions import ConditionError, Expression


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("event.payload.unit == 'x'", (("payload", "unit"),)),
        ("event.payload.unit.endsWith('.service')", (("payload", "unit"),)),
        ("has(event.payload.n) && event.severity in ['error']", (("payload", "n"), ("severity",))),
        ("size(event.payload) > 2 && event.payload.n > 1", (("payload",),)),
        ("event.payload.rules[0].code == 'E5'", (("payload", "rules"),)),
        ("event.payload.rules.exists(r, r == 'E5')", (("payload", "rules"),)),
        ("'event.payload' == event.topic", (("topic",),)),
        ("my.event.topic == event . topic", None),
        ("event['payload'].n > 1", None),
        ("event == null", None),
        ("event.size() > 1", None),
        ("event.topic == r'raw' // event.payload", None),
        ("[1].exists(event, event > 0)", None),
    ],
)
def test_paths_of_an_expression(text: str, paths: tuple[members.Path, ...] | None) -> None:
    """Plain member access is seen; anything else has the variable whole."""
    assert members.read(text, ["event"]).get("event") == paths


FIELDS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["x", "y"]),
    lambda inner: st.dictionaries(FIELDS, inner, max_size=3),
    max_leaves=8,
)
PATHS = st.lists(FIELDS, min_size=1, max_size=3).map(lambda names: "event." + ".".join(names))
TERMS = st.one_of(
    PATHS.map(lambda path: f"{path} == 1"),
    PATHS.map(lambda path: f"has({path})"),
    PATHS.map(lambda path: f"{path}.startsWith('x')"),
    PATHS.map(lambda path: f"size({path}) > 1"),
    PATHS.map(lambda path: f"{path} == {{'a': 1}}"),
    st.just("event['a'] == 1"),
)


def answer(text: str, variables: dict[str, Any], *, whole: bool) -> Any:
    expression = Expression(text)
    if whole:
        expression._members = {}
    try:
        return expression.evaluate(variables)
    except ConditionError as error:
        return error.reason


@given(terms=st.lists(TERMS, min_size=1, max_size=3), event=st.dictionaries(FIELDS, VALUES))
def test_answers_stay_the_same(terms: list[str], event: dict[str, Any]) -> None:
    """With the parts that it reads an expression answers, or fails, as with the whole event."""
    text = " || ".join(terms)
    variables = {"event": event}
    assert answer(text, variables, whole=False) == answer(text, variables, whole=True)
