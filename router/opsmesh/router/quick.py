"""The everyday part of CEL, answered on an event without the library, where the answer is certain.

The one rule: `True` and `False` are what the CEL library says; `None` is "ask the library". So a
reader that takes the short way decides as every other one does. Handing an event to the library
costs ten times what a comparison does (ADR 0003), and most events of most profiles are misses.

Known are `==`, `!=`, `<`, `<=`, `>`, `>=` with a literal on the right, `startsWith`, `endsWith`,
`contains`, `in` with a list of strings, `&&`, `||`, `!` and brackets, over fields of the event.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any, Final

from opsmesh.schemas.envelope import FIELDS, Event

Test = Callable[[Event], bool | None]

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<path>event(?:\.[A-Za-z_]\w*)+)|(?P<string>"[^"\\\n]*"|'[^'\\\n]*')
    |(?P<int>-?(?:0|[1-9]\d{0,14})(?![\w.]))|(?P<word>true|false|in)(?!\w)
    |(?P<sign>&&|\|\||==|!=|<=|>=|[<>!()\[\],]))""",
    re.VERBOSE,
)
#: CEL's integers have 64 bits, and what is larger becomes another type.
_LARGEST: Final = 2**63
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_METHODS: Final[dict[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
}


class _Unknown(Exception):
    """More than the everyday part."""


def compile(text: str) -> Test | None:
    """A test for the condition; None when it says more than is known here."""
    try:
        reader = _Reader(text)
        test = reader.either()
        reader.end()
    except (_Unknown, RecursionError):
        return None
    return test


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise _Unknown
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self._at = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, text: str) -> bool:
        if self._peek() != ("sign", text):
            return False
        self._at += 1
        return True

    def end(self) -> None:
        if self._at != len(self._tokens):
            raise _Unknown

    def either(self) -> Test:
        tests = [self.all()]
        while self._take("||"):
            tests.append(self.all())
        return tests[0] if len(tests) == 1 else _any(tuple(tests))

    def all(self) -> Test:
        tests = [self.one()]
        while self._take("&&"):
            tests.append(self.one())
        return tests[0] if len(tests) == 1 else _all(tuple(tests))

    def one(self) -> Test:
        if self._take("!"):
            return _not(self._bracket())
        if self._peek() == ("sign", "("):
            return self._bracket()
        kind, path = self._next()
        if kind != "path":
            raise _Unknown
        names = path.split(".")[1:]
        if self._take("("):
            test = _text_test(_getter(names[:-1]), _METHODS.get(names[-1]), self._string())
            if not self._take(")"):
                raise _Unknown
            return test
        kind, sign = self._next()
        if sign == "in":
            return _member(_getter(names), frozenset(self._strings()))
        order = _ORDER.get(sign)
        kind, literal = self._next()
        if order is None:
            raise _Unknown
        if kind == "string" and sign in ("==", "!="):
            return _compared(_getter(names), str, order, literal[1:-1])
        if kind == "int":
            return _compared(_getter(names), int, order, int(literal))
        if literal in ("true", "false") and sign in ("==", "!="):
            return _compared(_getter(names), bool, order, literal == "true")
        raise _Unknown

    def _bracket(self) -> Test:
        if not self._take("("):
            raise _Unknown
        test = self.either()
        if not self._take(")"):
            raise _Unknown
        return test

    def _string(self) -> str:
        kind, text = self._next()
        if kind != "string":
            raise _Unknown
        return text[1:-1]

    def _strings(self) -> list[str]:
        if not self._take("["):
            raise _Unknown
        found = [self._string()]
        while self._take(","):
            found.append(self._string())
        if not self._take("]"):
            raise _Unknown
        return found


def _getter(names: list[str]) -> Callable[[Event], Any]:
    """The value of a field; None for one that is not there, as for null: the library tells them
    apart."""
    if not names or names[0] not in FIELDS:
        raise _Unknown
    if len(names) == 1:
        return operator.attrgetter(names[0])
    if names[0] != "payload":
        raise _Unknown
    if len(names) == 2:
        name = names[1]
        return lambda event: event.payload.get(name)
    path = tuple(names[1:])

    def inner(event: Event) -> Any:
        value: Any = event.payload
        for name in path:
            if type(value) is not dict:
                return None
            value = value.get(name)
        return value

    return inner


def _compared(
    get: Callable[[Event], Any], kind: type, order: Callable[[Any, Any], bool], literal: Any
) -> Test:
    if kind is int:

        def number(event: Event) -> bool | None:
            value = get(event)
            if type(value) is int and -_LARGEST <= value < _LARGEST:
                return order(value, literal)
            return None

        return number

    def test(event: Event) -> bool | None:
        value = get(event)
        return order(value, literal) if type(value) is kind else None

    return test


def _text_test(
    get: Callable[[Event], Any], method: Callable[[str, str], bool] | None, literal: str
) -> Test:
    if method is None:
        raise _Unknown

    def test(event: Event) -> bool | None:
        value = get(event)
        return method(value, literal) if type(value) is str else None

    return test


def _member(get: Callable[[Event], Any], literals: frozenset[str]) -> Test:
    def test(event: Event) -> bool | None:
        value = get(event)
        return value in literals if type(value) is str else None

    return test


def _not(inner: Test) -> Test:
    def test(event: Event) -> bool | None:
        answer = inner(event)
        return None if answer is None else not answer

    return test


def _all(tests: tuple[Test, ...]) -> Test:
    def test(event: Event) -> bool | None:
        for one in tests:
            answer = one(event)
            if not answer:
                return answer
        return True

    return test


def _any(tests: tuple[Test, ...]) -> Test:
    def test(event: Event) -> bool | None:
        for one in tests:
            answer = one(event)
            if answer is not False:
                return answer
        return False

    return test
