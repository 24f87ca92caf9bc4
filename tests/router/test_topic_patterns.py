"""Topic patterns: what they cover, and patterns that do not overlap."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsmesh.router.conditions import Expression
from opsmesh.router.rule import Rule
from opsmesh.router.stages import Unless
from opsmesh.router.topic_patterns import disjoint, listens, overlap, topic_matches

#: Every topic of one to four tokens of a small alphabet.
TOPICS = [".".join(t) for n in range(1, 5) for t in product("ab", repeat=n)]

patterns = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.sampled_from("ab*"), min_size=1, max_size=3),
    st.sampled_from(((), (">",))),
)


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("service.start.failed", "service.start.failed", True),
        ("service.*.failed", "service.start.failed", True),
        ("service.*", "service.start.failed", False),
        ("service.*", "service", False),
        ("service.>", "service.start.failed", True),
        ("service.>", "service", False),
        ("*.start.*", "service.start.failed", True),
        (">", "service.start.failed", True),
        ("service.start", "service.start.failed", False),
        ("servic.", "service", False),
        ("service.sta*", "service.start", False),
    ],
)
def test_topic_matches(pattern: str, topic: str, matches: bool) -> None:
    """Patterns match as NATS subjects do."""
    assert topic_matches(pattern, topic) is matches


def test_listens() -> None:
    """A list of patterns covers what one of them does."""
    assert listens(("a.b", "c.>"), "a.b")
    assert listens(("a.b", "c.>"), "c.d.e")
    assert not listens(("a.b", "c.>"), "a.c")
    assert not listens((), "a.b")


@given(patterns, patterns)
def test_overlap(one: str, other: str) -> None:
    """Two patterns overlap exactly when some topic is covered by both."""
    both = any(topic_matches(one, t) and topic_matches(other, t) for t in TOPICS)
    assert overlap(one, other) is both
    assert overlap(other, one) is both


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ((), ()),
        (("a.b", "a.c"), ("a.b", "a.c")),
        (("a.b", "a.b"), ("a.b",)),
        (("a.b", "a.*"), ("a.*",)),
        (("a.>", "a.b.c", "a.*"), ("a.>",)),
        (("a.*", "*.b"), ("*.*",)),
        (("a.*.c", "a.b.>"), ("a.*.>",)),
        (("a.*", "*.b", "c.d"), ("*.*",)),
    ],
)
def test_disjoint_examples(given: tuple[str, ...], found: tuple[str, ...]) -> None:
    """Of two that overlap the wider one stays, or the narrowest that covers both."""
    assert disjoint(given) == found


@given(st.lists(patterns, max_size=6))
def test_disjoint(given: list[str]) -> None:
    """No two of the patterns overlap, and together they cover all that was asked for."""
    found = disjoint(given)
    assert not any(overlap(*pair) for pair in combinations(found, 2))
    for topic in TOPICS:
        assert listens(found, topic) or not listens(given, topic)
    assert disjoint(found) == found


@given(st.lists(patterns, max_size=6))
def test_disjoint_leaves_alone_what_is(given: list[str]) -> None:
    """Patterns that do not overlap stay as they are."""
    alone = [p for n, p in enumerate(given) if not any(overlap(p, o) for o in given[:n])]
    if len(alone) == len(given):
        assert disjoint(given) == tuple(given)


def test_what_a_rule_listens_to() -> None:
    """A rule must be shown its own topics, those that end its waits and those of its `last`."""
    rule = Rule(
        name="p",
        hash="h",
        on=("t.a", "t.b"),
        where=Expression('last("l.x") != null'),
        unless=Unless(on=("t.*",), within_us=1),
        unless_where=Expression('last("l.y", "any") == null'),
    )
    assert rule.decided == ("t.a", "t.b", "t.*")
    assert sorted(rule.listens) == ["l.x", "l.y", "t.*"]
