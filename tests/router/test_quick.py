"""The short way answers what the CEL library answers, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opsmesh.router import quick
from opsmesh.router.conditions import Expression
from opsmesh.schemas.envelope import Event

FIELDS = ("payload.a", "payload.b", "payload.in_side.c", "topic", "hops", "exit_code", "run_id")
WORDS = ("", "a", "ab", "b", "é", "tool")

values: st.SearchStrategy[object] = st.one_of(
    st.sampled_from([*WORDS, None, True, False, 0, 1, -1, 2, 1.0, 1.5, 2**63, -(2**63), [], {}]),
    st.integers(-3, 3),
)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "a": values,
        "b": values,
        "in_side": st.one_of(values, st.fixed_dictionaries({}, optional={"c": values})),
    },
)
events = st.builds(
    lambda payload, hops, code, run: Event(
        topic="a.b",
        ts_utc="2026-11-23T09:12:00Z",
        source="s",
        component="c",
        severity="info",
        correlation_id="1",
        host="h",
        session_id="",
        workspace="ab",
        payload=payload,
        hops=hops,
        exit_code=code,
        run_id=run,
    ),
    payloads,
    st.integers(0, 2),
    st.sampled_from([None, 0, 1]),
    st.sampled_from([None, "a"]),
)
fields = st.sampled_from(FIELDS).map(lambda field: f"event.{field}")
strings = st.sampled_from(WORDS).map(lambda word: f'"{word}"')
leaves = st.one_of(
    st.builds("{} {} {}".format, fields, st.sampled_from(["==", "!="]), strings),
    st.builds(
        "{} {} {}".format,
        fields,
        st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
        st.integers(-2, 2),
    ),
    st.builds(
        "{} {} {}".format,
        fields,
        st.sampled_from(["==", "!="]),
        st.sampled_from(["true", "false"]),
    ),
    st.builds(
        "{}.{}({})".format,
        fields,
        st.sampled_from(["startsWith", "endsWith", "contains"]),
        strings,
    ),
    st.builds("{} in [{}]".format, fields, st.lists(strings, min_size=1, max_size=3).map(",".join)),
)
conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds("{} && {}".format, inner, inner),
        st.builds("{} || {}".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({})".format, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=400)
@given(conditions, events)
@example('event.payload.a == "a" || event.payload.b > 1', None)
def test_a_certain_answer_is_the_librarys(text: str, event: Event | None) -> None:
    """Whatever fields hold or lack, True and False are what CEL says."""
    test = quick.compile(text)
    assert test is not None, "all of these are of the everyday part"
    if event is None:
        return
    answer = test(event)
    if answer is None:
        return
    assert Expression(text).evaluate({"event": event.view()}) is answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('event.payload.a == "ab" && event.payload.n > 0', True),
        ('event.payload.a == "x" && event.payload.nope == 1', False),
        ('event.payload.a.startsWith("a") || event.payload.nope == 1', True),
        ('!(event.payload.in_side.c in ["b", "c"])', False),
        ('event.payload.yes == true && event.severity != "error"', True),
        ("event.payload.nope == 1", None),
        ('event.payload.n == "1"', None),
    ],
)
def test_what_is_certain(text: str, answer: bool | None) -> None:
    """Fields that are there and of the literal's type give an answer; others are the library's."""
    event = Event(
        topic="a.b",
        ts_utc="2026-11-23T09:12:00Z",
        source="s",
        component="c",
        severity="info",
        correlation_id="1",
        host="h",
        session_id="",
        workspace="",
        payload={"a": "ab", "n": 1, "yes": True, "in_side": {"c": "b"}},
    )
    test = quick.compile(text)
    assert test is not None
    assert test(event) is answer


@pytest.mark.parametrize(
    "text",
    [
        "event.payload.a",
        "event.payload.a == 1.0",
        "event.payload.a == 1u",
        "event.payload.a == 12345678901234567890",
        'event.payload.a == "\\n"',
        "event.payload.a == b",
        'event["payload"].a == 1',
        "size(event.payload.a) == 1",
        'event.payload.a.matches("x")',
        "event.payload.a == event.payload.b",
        "event.nope == 1",
        'vars.a == "x"',
        "1 == 1",
        "event.payload.a == 1 &&",
        "(event.payload.a == 1",
        "event.payload.a == null",
        'last("a.b").payload.a == 1',
        "event.payload.a in [1]",
        "! event.payload.a == true",
    ],
)
def test_the_rest_is_the_librarys(text: str) -> None:
    """A condition that says more has no short way."""
    assert quick.compile(text) is None
