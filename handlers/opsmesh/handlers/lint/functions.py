"""What CEL's functions and operators take and give.

That a function does not exist is asked of the library itself: it may learn new ones.
"""

from __future__ import annotations

import functools
import json
from typing import Final

from opsmesh.handlers.lint import kinds
from opsmesh.handlers.lint.kinds import Type
from opsmesh.router.conditions import ConditionError, Expression

#: Methods of a text with one text, which answer true or false.
TEXT_METHODS: Final = frozenset({"startsWith", "endsWith", "contains", "matches"})
#: Methods of a list or a map that bind a name.
MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})
#: What has a size.
SIZED: Final = ("text", "list", "map", "bytes")
#: What `timestamp()` and `duration()` read.
READERS: Final = {"timestamp": kinds.TIME, "duration": kinds.DURATION}
#: What a constant argument of a function is, and how it is written.
CONSTANTS: Final = {
    "matches": ("regular expression", "they are RE2's: no look-around, no back-references"),
    "timestamp": ("time", "write it like 2026-11-23T09:12:00Z"),
    "duration": ("duration", "write it like 5m or 1h30m"),
}

_OF_DURATION: Final = frozenset({"getHours", "getMinutes", "getSeconds", "getMilliseconds"})
_OF_TIME: Final = _OF_DURATION | {
    *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getMonth")
}
_CONVERSIONS: Final = {
    "bool": kinds.BOOL,
    "bytes": Type(kinds=frozenset({"bytes"})),
    "double": kinds.FLOAT,
    "int": kinds.INT,
    "string": kinds.TEXT,
    "uint": kinds.INT,
}
#: Every function, to find the nearest of a misspelt one.
NAMES: Final = frozenset(
    {*TEXT_METHODS, *MACROS, *READERS, *_OF_TIME, *_CONVERSIONS, "has", "last", "size", "type"}
)

_ARITHMETIC: Final[dict[str, dict[tuple[str, str], Type]]] = {
    "+": {
        ("text", "text"): kinds.TEXT,
        ("list", "list"): kinds.LIST,
        ("bytes", "bytes"): Type(kinds=frozenset({"bytes"})),
        ("time", "duration"): kinds.TIME,
        ("duration", "time"): kinds.TIME,
        ("duration", "duration"): kinds.DURATION,
    },
    "-": {
        ("time", "time"): kinds.DURATION,
        ("time", "duration"): kinds.TIME,
        ("duration", "duration"): kinds.DURATION,
    },
}
_ORDERED: Final = ("text", "time", "duration", "bytes")


def takes(name: str) -> tuple[str, ...] | None:
    """The kinds that a method is for; None for any."""
    if name in TEXT_METHODS:
        return ("text",)
    if name in MACROS:
        return ("list", "map")
    if name == "size":
        return SIZED
    if name in _OF_TIME:
        return ("time", "duration") if name in _OF_DURATION else ("time",)
    return None


def gives(name: str) -> Type:
    """What a function answers."""
    if name in TEXT_METHODS or name in ("has", "all", "exists", "exists_one"):
        return kinds.BOOL
    if name == "size" or name in _OF_TIME:
        return kinds.INT
    if name in ("filter", "map"):
        return kinds.LIST
    return READERS.get(name) or _CONVERSIONS.get(name) or kinds.ANY


def arithmetic(op: str, left: Type, right: Type) -> Type | None:
    """What `left op right` gives; None when it never has an answer."""
    if not (left.known and right.known):
        return kinds.ANY
    found: list[Type] = []
    for pair in ((a, b) for a in sorted(left.kinds) for b in sorted(right.kinds)):
        if set(pair) <= kinds.NUMBERS:
            found.append(kinds.INT if pair == ("int", "int") else kinds.FLOAT)
        elif pair in _ARITHMETIC.get(op, {}):
            found.append(_ARITHMETIC[op][pair])
    if not found:
        return None
    return found[0] if len(found) == 1 else kinds.ANY


def comparable(left: Type, right: Type) -> bool:
    """Whether `==` of the two can be true."""
    if not (left.known and right.known) or left.kinds & right.kinds:
        return True
    # a field that is never null may still be asked whether it is
    return (
        bool(left.kinds & kinds.NUMBERS and right.kinds & kinds.NUMBERS)
        or left == kinds.NULL
        or right == kinds.NULL
    )


def ordered(left: Type, right: Type) -> bool:
    """Whether `<` of the two has an answer."""
    if not (left.known and right.known):
        return True
    if left.kinds & kinds.NUMBERS and right.kinds & kinds.NUMBERS:
        return True
    return any(kind in left.kinds and kind in right.kinds for kind in _ORDERED)


@functools.cache
def unknown(name: str, *, method: bool) -> bool:
    """Whether the library has no such function."""
    if name in NAMES:
        return False
    return _refused(f'"".{name}()' if method else f"{name}()").startswith("unknown function")


@functools.cache
def unreadable(name: str, text: str) -> bool:
    """Whether a constant argument cannot be read as what it is to be."""
    literal = json.dumps(text, ensure_ascii=False)
    return bool(_refused(f'"".matches({literal})' if name == "matches" else f"{name}({literal})"))


def _refused(text: str) -> str:
    try:
        Expression(text).evaluate({})
    except ConditionError as error:
        return error.reason
    return ""
