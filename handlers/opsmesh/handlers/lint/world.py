"""What an expression is read with, what is found of its parts, and how both are said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.handlers.lint import cel, kinds
from opsmesh.handlers.lint.kinds import Type

#: The value of what is no constant.
UNKNOWN: Final = object()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong at a place of the text. `sure` is false for what may be meant."""

    at: int
    code: str
    message: str
    hint: str = ""
    sure: bool = True
    #: For a field that is missing: its name, the names that there are, and whose it would be.
    field: str = ""
    known: tuple[str, ...] = ()
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a part of an expression is, and its value where that is certain."""

    type: Type = kinds.ANY
    value: Any = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class World:
    """What an expression is read with: the types of its names, the type of what `last(…)` of a
    topic gives, paths whose values are known, and which topics `event.topic` can be."""

    names: Mapping[str, Type]
    last: Callable[[str], Type] = lambda topic: kinds.ANY
    known: Mapping[str, Any]
    covers: Callable[[str], bool] = lambda topic: True


def facts(node: cel.Node, truth: bool) -> frozenset[str]:
    """Paths that are certainly there when the node is `truth`."""
    match node:
        case cel.Call(name="has", target=None) if truth:
            return frozenset(path for arg in node.args if (path := cel.path(arg)))
        case cel.Binary(op="in", left=cel.Literal(kind="text", value=field)) if truth:
            path = cel.path(node.right)
            return frozenset({f"{path}.{field}"} if path else ())
        case cel.Unary(op="!"):
            return facts(node.operand, not truth)
        case cel.Binary() if node.op == ("&&" if truth else "||"):
            return facts(node.left, truth) | facts(node.right, truth)
    return frozenset()


def told(node: cel.Node, found: Type) -> str:
    """The node and its kind, in words."""
    match node:
        case cel.Literal():
            name = json.dumps(node.value, ensure_ascii=False)
        case cel.Call() if node.name != "last":
            name = f"{node.name}(…)"
        case cel.Listing():
            name = "[…]"
        case _:
            name = cel.path(node) or "the expression"
    return f"{name} is {found.spoken}"


def mended(one: Seen, other: Seen) -> str:
    """How the constant `one` would fit the type of the other side."""
    value = one.value
    if isinstance(value, str):
        if other.type.only("int", "float", "null") and value.replace(".", "", 1).isdecimal():
            return f"write {value} without quotes"
        if other.type.only("bool", "null") and value in ("true", "false"):
            return f"write {value} without quotes"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and other.type.only("text", "null"):
        return f'write "{value}" in quotes'
    if one.type.only("text") and other.type.only("time"):
        return "timestamp(…) makes a time of a text"
    if one.type.only("text") and other.type.only("duration"):
        return 'duration("5m") makes a duration of a text'
    return ""
