"""Parts of a condition that are decided by their own text: `a == "x" && a == "y"` is never true,
`a != "x" || a != "y"` always."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opsmesh.handlers.lint import cel

_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


@dataclass(frozen=True, kw_only=True)
class Odd:
    """A part that is decided already, and whether it is the whole condition."""

    at: int
    message: str
    hint: str
    whole: bool


@dataclass(frozen=True, kw_only=True)
class _Test:
    """`path op value`."""

    at: int
    path: str
    op: str
    value: Any


def find(tree: cel.Node) -> Iterator[Odd]:
    """Every such part, at the test that contradicts an earlier one."""
    yield from _find(tree, whole=True, above="")


def _find(node: cel.Node, *, whole: bool, above: str) -> Iterator[Odd]:
    op = node.op if isinstance(node, cel.Binary) else ""
    if op in ("&&", "||") and op != above:
        tests = [test for part in cel.parts(node, op) if (test := _test(part)) is not None]
        found = _never(tests) if op == "&&" else _always(tests)
        if found is not None:
            at, message, hint = found
            yield Odd(at=at, message=message, hint=hint, whole=whole)
    for child in cel.children(node):
        yield from _find(child, whole=whole and op == above == "&&", above=op)


def _test(node: cel.Node) -> _Test | None:
    if not isinstance(node, cel.Binary) or node.op not in _TURNED:
        return None
    path, literal, op = cel.path(node.left), node.right, node.op
    if isinstance(node.left, cel.Literal):
        path, literal, op = cel.path(node.right), node.left, _TURNED[node.op]
    if path is None or not isinstance(literal, cel.Literal) or literal.kind == "bytes":
        return None
    return _Test(at=cel.start(node), path=path, op=op, value=literal.value)


def _never(tests: list[_Test]) -> tuple[int, str, str] | None:
    for n, test in enumerate(tests):
        for before in tests[:n]:
            if before.path == test.path and not _together(before, test):
                both = f"{_shown(before)} and {_shown(test)}"
                hint = "|| is meant?" if before.op == test.op == "==" else ""
                return test.at, f"{test.path} is never {both} at once", hint
    return None


def _always(tests: list[_Test]) -> tuple[int, str, str] | None:
    for n, test in enumerate(tests):
        for before in tests[:n]:
            other = before.path == test.path and before.value != test.value
            if other and before.op == test.op == "!=":
                both = f"{_shown(before)} or {_shown(test)}"
                return test.at, f"{test.path} is always {both}", "&& is meant?"
    return None


def _together(one: _Test, other: _Test) -> bool:
    """Whether some value passes both tests; true also where that is not certain."""
    if "==" in (one.op, other.op):
        fixed, free = (one, other) if one.op == "==" else (other, one)
        return _passes(fixed.value, free)
    if not (_number(one.value) and _number(other.value)):
        return True
    for low, high in ((one, other), (other, one)):
        if low.op[0] == ">" and high.op[0] == "<":
            if low.op == ">=" and high.op == "<=":
                return bool(low.value <= high.value)
            return bool(low.value < high.value)
    return True


def _passes(value: Any, test: _Test) -> bool:
    if test.op in ("==", "!="):
        same = value == test.value and isinstance(value, bool) is isinstance(test.value, bool)
        return same is (test.op == "==")
    if not (_number(value) and _number(test.value)):
        return True
    if test.op[0] == "<":
        return bool(value < test.value or (test.op == "<=" and value == test.value))
    return bool(value > test.value or (test.op == ">=" and value == test.value))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(test: _Test) -> str:
    value = json.dumps(test.value, ensure_ascii=False)
    words = {"==": value, "!=": f"other than {value}"}
    return words.get(test.op, f"{test.op} {value}")
