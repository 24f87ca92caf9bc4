"""CEL as a tree, against the library that evaluates it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from opsmesh.handlers.lint import cel, contradictions
from opsmesh.router.conditions import Expression

VARIABLES: dict[str, Any] = {"event": {"n": 3, "t": "abc", "l": [1, 2], "m": {"k": "v"}}}


@pytest.mark.parametrize(
    "text",
    [
        'event.t == "abc" && !(event.n > 2 || false)',
        "1 + 2 * 3 - 4 % 3 == 6",
        "event.n > 2 ? [1, 2,] : [3]",
        'event["m"]["k"].startsWith("v")',
        "event.l.exists(x, x == 2)",
        '{"a": 1, "b": {"c": 2}}.b.c',
        "-event.n < -2.5e0 // a comment",
        r'"a\"b\n\u00e9\x41\101" == "x"',
        r"r'\d+' == '''\\d'''",
        "0x1F == 31 && 3u == 3u",
        "event.l[0] in [1] && size(event.l) == 2",
        "true\n  && // why\n  null == null",
    ],
)
def test_what_cel_reads_is_read(text: str) -> None:
    """An expression that the library evaluates has a tree, and its constants have values."""
    Expression(text).evaluate(VARIABLES)
    assert cel.parse(text) is not None


@pytest.mark.parametrize("text", ["event.?x", "Event{topic: 1}", "1 +", "a ==", "#", "'open", ""])
def test_what_is_not_understood_has_no_tree(text: str) -> None:
    """Nobody can complain about what has no tree."""
    assert cel.parse(text) is None


def test_very_deep_expressions_have_no_tree() -> None:
    """Nesting beyond Python's own limit is no crash."""
    assert cel.parse("(" * 5000 + "1" + ")" * 5000) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\"b"', 'a"b'),
        (r"'\u00e9\x41\101\n'", "éAA\n"),
        (r'r"\d"', r"\d"),
        ('"""a"b"""', 'a"b'),
        ("12", 12),
        ("0x1f", 31),
        ("1.5e1", 15.0),
        ("null", None),
    ],
)
def test_literals_are_what_the_library_makes_of_them(text: str, value: Any) -> None:
    """A literal's value is the library's."""
    tree = cel.parse(text)
    assert isinstance(tree, cel.Literal)
    assert tree.value == value == Expression(text).evaluate({})


def test_operators_bind_as_in_the_library() -> None:
    """The tree, evaluated by hand, gives what the library gives."""
    texts = [
        "1 + 2 * 3",
        "10 - 4 - 3",
        "2 * 3 + 4 * 5",
        "20 / 2 / 5",
        "1 < 2 == true",
        "!true || true",
    ]
    for text in texts:
        tree = cel.parse(text)
        assert tree is not None
        assert _value(tree) == Expression(text).evaluate({}), text


def _value(node: cel.Node) -> Any:
    match node:
        case cel.Literal():
            return node.value
        case cel.Unary():
            return not _value(node.operand)
        case cel.Binary():
            left, right = _value(node.left), _value(node.right)
            return {
                "+": lambda: left + right,
                "-": lambda: left - right,
                "*": lambda: left * right,
                "/": lambda: left // right,
                "<": lambda: left < right,
                "==": lambda: left == right,
                "||": lambda: left or right,
            }[node.op]()
    raise AssertionError(node)


def test_places() -> None:
    """A member stands where its name begins, a part where its text begins."""
    text = 'event.a == 1 && event.payload["unit"].size() > 2'
    tree = cel.parse(text)
    assert isinstance(tree, cel.Binary)
    members = {node.field: node.at for node in _members(tree)}
    assert members == {
        "a": text.index("a =="),
        "payload": text.index("payload"),
        "unit": text.index('"unit"'),
    }
    assert (cel.start(tree.left), cel.start(tree.right)) == (0, text.index("event.payload"))


def _members(node: cel.Node) -> Iterator[cel.Member]:
    if isinstance(node, cel.Member):
        yield node
    for child in cel.children(node):
        yield from _members(child)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ('a == "x" && b && a == "y"', [True]),
        ('(a == "x" && (b && a == "y")) || c', [False]),
        ("a > 5 && a <= 5", [True]),
        ("5 < a && a == 3", [True]),
        ("a == 1 && a != 1", [True]),
        ('a != "x" || a != "y"', [True]),
        ('c && (a != "x" || a != "y")', [False]),
        ('a == "x" || a == "y"', []),
        ('a != "x" && a != "y"', []),
        ("a >= 5 && a <= 5", []),
        ("a > 3 && a < 5", []),
        ('a == "x" && b == "y"', []),
        ('a == "x" && a > "a"', []),
        ("a == 1 && a == 1.0", []),
    ],
)
def test_contradictions(text: str, whole: list[bool]) -> None:
    """What two tests of one path make certain is found, and nothing that is not certain."""
    tree = cel.parse(text)
    assert tree is not None
    assert [one.whole for one in contradictions.find(tree)] == whole
