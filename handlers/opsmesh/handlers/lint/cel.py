"""CEL as a tree. The library that evaluates CEL shows none (ADR 0003), and a lint needs one.

It reads the whole grammar but messages (`Name{field: 1}`) and optionals (`a.?b`): those, and all
that is no CEL, give None. Who does not understand an expression must not complain about it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, kw_only=True)
class Literal:
    """A number, text, true, false or null. Bytes have the value None and the kind `bytes`."""

    at: int
    value: Any
    kind: str


@dataclass(frozen=True, kw_only=True)
class Name:
    """A variable."""

    at: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Member:
    """`target.field`, or `target["field"]`. `at` is where the field stands."""

    at: int
    target: Node
    field: str


@dataclass(frozen=True, kw_only=True)
class Index:
    """`target[key]` with a key that is no text."""

    at: int
    target: Node
    key: Node


@dataclass(frozen=True, kw_only=True)
class Call:
    """`name(…)`, or `target.name(…)`. Operators have their own classes."""

    at: int
    name: str
    target: Node | None
    args: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True)
class Unary:
    """`!x` or `-x`."""

    at: int
    op: str
    operand: Node


@dataclass(frozen=True, kw_only=True)
class Binary:
    """`left op right`. `at` is where the operator stands."""

    at: int
    op: str
    left: Node
    right: Node


@dataclass(frozen=True, kw_only=True)
class Choice:
    """`condition ? yes : no`."""

    at: int
    condition: Node
    yes: Node
    no: Node


@dataclass(frozen=True, kw_only=True)
class Listing:
    """`[a, b]`."""

    at: int
    items: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """`{a: b}`."""

    at: int
    entries: tuple[tuple[Node, Node], ...]


Node = Literal | Name | Member | Index | Call | Unary | Binary | Choice | Listing | Mapping

_TOKEN = re.compile(
    r"""(?P<space>(?:\s+|//[^\n]*)+)
    |(?P<string>(?P<prefix>[rR][bB]?|[bB][rR]?)?
        (?P<quoted>\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}
        |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
    |(?P<int>0[xX][0-9a-fA-F]+[uU]?|\d+[uU]?)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.)", re.S)
_PLAIN: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_WORDS: Final[dict[str, tuple[Any, str]]] = {
    "true": (True, "bool"),
    "false": (False, "bool"),
    "null": (None, "null"),
}
#: Binary operators, loosest first.
_LEVELS: Final = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)


class _Unread(Exception):
    """Not in the part of CEL that is read here."""


@functools.lru_cache(maxsize=1024)
def parse(text: str) -> Node | None:
    """The expression's tree; None for what is not understood."""
    try:
        reader = _Reader(text)
        node = reader.expression()
        reader.end()
    except (_Unread, RecursionError, ValueError, OverflowError):
        return None
    return node


class _Reader:
    """Recursive descent over the tokens: kind, text, place."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, re.Match[str]]] = []
        self._length = len(text)
        self._next = 0
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise _Unread
            kind = next(k for k in ("space", "string", "float", "int", "word", "op") if found[k])
            if kind != "space":
                self._tokens.append((kind, found))
            at = found.end()

    def expression(self) -> Node:
        condition = self._binary(0)
        at = self._place()
        if not self._took("?"):
            return condition
        yes = self._binary(0)
        self._take(":")
        return Choice(at=at, condition=condition, yes=yes, no=self.expression())

    def end(self) -> None:
        if self._next < len(self._tokens):
            raise _Unread

    def _binary(self, level: int) -> Node:
        inner: Callable[[], Node] = (
            self._unary if level == len(_LEVELS) - 1 else lambda: self._binary(level + 1)
        )
        left = inner()
        while (op := self._peek()[1]) in _LEVELS[level] and self._peek()[0] != "string":
            at = self._place()
            self._next += 1
            left = Binary(at=at, op=op, left=left, right=inner())
        return left

    def _unary(self) -> Node:
        at = self._place()
        for op in ("!", "-"):
            if self._took(op):
                return Unary(at=at, op=op, operand=self._unary())
        return self._member()

    def _member(self) -> Node:
        node = self._primary()
        while True:
            if self._took("."):
                at = self._place()
                name = self._word()
                if self._took("("):
                    node = Call(at=at, name=name, target=node, args=self._list(")"))
                else:
                    node = Member(at=at, target=node, field=name)
            elif self._took("["):
                at = self._place()
                key = self.expression()
                self._take("]")
                if isinstance(key, Literal) and key.kind == "text":
                    node = Member(at=at, target=node, field=key.value)
                else:
                    node = Index(at=at, target=node, key=key)
            else:
                return node

    def _primary(self) -> Node:
        at = self._place()
        kind, text = self._peek()
        if kind == "word" and text in _WORDS:
            self._next += 1
            value, of = _WORDS[text]
            return Literal(at=at, value=value, kind=of)
        if kind == "word":
            self._next += 1
            if self._took("("):
                return Call(at=at, name=text, target=None, args=self._list(")"))
            if self._peek()[1] == "{":
                raise _Unread  # a message
            return Name(at=at, name=text)
        if kind in ("string", "int", "float"):
            return self._literal()
        if self._took("("):
            node = self.expression()
            self._take(")")
            return node
        if self._took("["):
            return Listing(at=at, items=self._list("]"))
        if self._took("{"):
            return Mapping(at=at, entries=self._entries())
        raise _Unread

    def _literal(self) -> Node:
        kind, found = self._tokens[self._next]
        self._next += 1
        at = found.start()
        if kind == "float":
            return Literal(at=at, value=float(found[0]), kind="float")
        if kind == "int":
            return Literal(at=at, value=int(found[0].rstrip("uU"), 0), kind="int")
        prefix = (found["prefix"] or "").lower()
        if "b" in prefix:
            return Literal(at=at, value=None, kind="bytes")
        quoted = found["quoted"]
        marks = 3 if quoted[:3] in ('"""', "'''") else 1
        inner = quoted[marks:-marks]
        return Literal(at=at, value=inner if prefix else _ESCAPE.sub(_escaped, inner), kind="text")

    def _list(self, closing: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._took(closing):
            items.append(self.expression())
            if not self._took(","):
                self._take(closing)
                break
        return tuple(items)

    def _entries(self) -> tuple[tuple[Node, Node], ...]:
        entries: list[tuple[Node, Node]] = []
        while not self._took("}"):
            key = self.expression()
            self._take(":")
            entries.append((key, self.expression()))
            if not self._took(","):
                self._take("}")
                break
        return tuple(entries)

    def _word(self) -> str:
        kind, text = self._peek()
        if kind != "word":
            raise _Unread
        self._next += 1
        return text

    def _peek(self) -> tuple[str, str]:
        if self._next >= len(self._tokens):
            return "", ""
        kind, found = self._tokens[self._next]
        return kind, found[0]

    def _place(self) -> int:
        if self._next >= len(self._tokens):
            return self._length
        return self._tokens[self._next][1].start()

    def _took(self, op: str) -> bool:
        if self._peek() != ("op", op):
            return False
        self._next += 1
        return True

    def _take(self, op: str) -> None:
        if not self._took(op):
            raise _Unread


def _escaped(found: re.Match[str]) -> str:
    code = found[1]
    if code[0] in "xuU":
        return chr(int(code[1:], 16))
    return chr(int(code, 8)) if code[0].isdigit() else _PLAIN.get(code, code)


def start(node: Node) -> int:
    """Where the node's text begins."""
    match node:
        case Binary():
            return start(node.left)
        case Choice():
            return start(node.condition)
        case Member() | Index():
            return start(node.target)
        case Call() if node.target is not None:
            return start(node.target)
    return node.at


def path(node: Node) -> str | None:
    """`event.payload.unit`, or `last("topic").payload.x`; None for what is no path of members."""
    match node:
        case Name():
            return node.name
        case Member():
            before = path(node.target)
            return None if before is None else f"{before}.{node.field}"
        case Call(name="last", target=None):
            texts = [f'"{a.value}"' for a in node.args if isinstance(a, Literal)]
            return f"last({', '.join(texts)})"
    return None


def parts(node: Node, op: str) -> list[Node]:
    """The operands of a chain of `op`, or the node alone."""
    if isinstance(node, Binary) and node.op == op:
        return [*parts(node.left, op), *parts(node.right, op)]
    return [node]


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below."""
    match node:
        case Member():
            return (node.target,)
        case Index():
            return (node.target, node.key)
        case Call():
            return (*((node.target,) if node.target else ()), *node.args)
        case Unary():
            return (node.operand,)
        case Binary():
            return (node.left, node.right)
        case Choice():
            return (node.condition, node.yes, node.no)
        case Listing():
            return node.items
        case Mapping():
            return tuple(part for entry in node.entries for part in entry)
    return ()
