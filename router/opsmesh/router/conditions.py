"""Conditions in CEL: text becomes an `Expression` once, and is evaluated once an event (ADR 0003).

`last("topic")`, the newest event of a topic, is a function of ours: it is read as a variable, so
that what it needs is known before anything is evaluated. Nothing else in opsmesh names the CEL
library. It is loaded by the first Expression, not by the import of this module: a process without
conditions does not pay for it.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from opsmesh.router import members, quick
from opsmesh.router.errors import RouterError
from opsmesh.schemas.envelope import Event

#: Functions of the library, to tell a misspelt name from wrong arguments.
_FUNCTIONS: Final = frozenset(
    {
        *("bool", "bytes", "double", "duration", "int", "string", "timestamp", "type", "uint"),
        *("all", "exists", "exists_one", "filter", "has", "map", "size"),
        *("contains", "endsWith", "matches", "startsWith"),
        *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getMonth"),
        *("getHours", "getMilliseconds", "getMinutes", "getSeconds"),
    }
)
#: Words that CEL keeps for itself: a field of that name is reached with ["…"] only.
_RESERVED: Final = frozenset({"true", "false", "null", "in"})

_BOUND = re.compile(r"\.(?:all|exists|exists_one|filter|map)\(\s*(\w+)\s*,")
_FIRST_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)")


#: `last("topic")` and `last("topic", "any")`, outside of strings.
_LAST = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?<![\w.])last\s*\((?P<inside>[^()]*)\)"""
)
_LAST_INSIDE = re.compile(r"""\s*(["'])([a-z0-9_.]+)\1\s*(?:,\s*(["'])any\3\s*)?""")


class ConditionError(RouterError, ValueError):
    """The expression `text` cannot be read (`column` is set), or not answered for these values.

    `column` counts from 1 on the line of the text that is wrong.
    """

    def __init__(self, text: str, reason: str, column: int | None = None) -> None:
        where = "" if column is None else f" (column {column})"
        super().__init__(f"{_short(text)}: {reason}{where}")
        self.text = text
        self.reason = reason
        self.column = column


@dataclass(frozen=True, order=True)
class Last:
    """A `last(…)` of an expression: the newest event of `topic` on the deciding host, or anywhere.

    `call` is how it is written without spaces; values of a decision are named after it.
    """

    topic: str
    anywhere: bool = False

    @property
    def call(self) -> str:
        """The function call in its canonical form."""
        return f'last("{self.topic}", "any")' if self.anywhere else f'last("{self.topic}")'


class Expression:
    """A compiled CEL expression. Equal when their texts are; safe to share between tasks."""

    __slots__ = ("_lasts", "_members", "_program", "_quick", "_reads", "last", "names", "text")

    def __init__(self, text: str) -> None:
        code, self._lasts = _without_last(text)
        try:
            self._program = _library().compile(code)
        except ValueError as error:
            raise _syntax(text, str(error)) from None
        self.text = text
        self._quick = quick.compile(text)
        self._reads = frozenset(self._program.variables())
        self._members = members.read(code, self._reads)
        #: Every `last(…)` that it reads.
        self.last: tuple[Last, ...] = tuple(sorted(set(self._lasts.values())))
        #: Top-level names that the expression reads, without those that a macro binds.
        self.names: frozenset[str] = (
            self._reads - frozenset(_BOUND.findall(text)) - self._lasts.keys()
        )

    def paths(self) -> dict[str | Last, tuple[tuple[str, ...], ...]]:
        """The members that it reads of each name and each `last(…)`; none: the whole of it."""
        return {self._lasts.get(name, name): self._members.get(name, ()) for name in self._reads}

    def certainly(self, event: Event) -> bool | None:
        """The answer for an event where it can be had without the library (`quick`)."""
        return None if self._quick is None else self._quick(event)

    def evaluate(
        self,
        variables: Mapping[str, Any],
        last: Mapping[Last, Any] | None = None,
        *,
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> Any:
        """The answer as a plain Python value; ConditionError when these values give none.

        `last` holds the events that `last(…)` stands for, as maps; one that is not in it is null.
        `functions` may be called beside CEL's own.
        """
        # Only what is read is converted for the library: that is most of an evaluation's cost.
        used = {name: self._used(name, variables[name]) for name in self._reads & variables.keys()}
        for name, wanted in self._lasts.items():
            used[name] = self._used(name, (last or {}).get(wanted))
        used |= functions or {}
        try:
            return self._program.execute(used)
        except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:
            absent = next((w for n, w in self._lasts.items() if used[n] is None), None)
            if absent is not None:
                reason = f"there is no {absent.topic} yet; {absent.call} != null asks for it"
                raise ConditionError(self.text, reason) from None
            raise ConditionError(self.text, _reason(self.text, error, variables)) from None

    def _used(self, name: str, value: Any) -> Any:
        paths = self._members.get(name)
        return members.pick(value, paths) if paths else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


@functools.cache
def _library() -> ModuleType:
    """The library's compiled module, without its package's `__init__`.

    That one imports the library's own command line with prompt_toolkit and typer: 130 ms and
    26 MB that no component of the mesh uses (measured in ADR 0003).
    """
    package = importlib.util.find_spec("cel")
    paths = package.submodule_search_locations if package else None
    spec = importlib.machinery.PathFinder.find_spec("cel.cel", paths) if paths else None
    if "cel.cel" in sys.modules or spec is None or spec.loader is None:
        import cel

        return cel
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[spec.name] = module  # so that `import cel` elsewhere finds the same one
    return module


def _without_last(text: str) -> tuple[str, dict[str, Last]]:
    """The text with a variable, of the same length, in place of every `last(…)`."""
    found: dict[str, Last] = {}

    def variable(match: re.Match[str]) -> str:
        if match["string"] is not None:
            return match[0]
        inside = _LAST_INSIDE.fullmatch(match["inside"])
        if inside is None:
            reason = 'last() takes a topic in quotes: last("git.head.moved"), or with , "any"'
            raise ConditionError(text, reason, match.start() + 1)
        wanted = Last(inside[2], inside[3] is not None)
        known = next((n for n, w in found.items() if w == wanted and len(n) == len(match[0])), None)
        name = known or f"_last{len(found)}".ljust(len(match[0]), "_")
        found[name] = wanted
        return name

    return _LAST.sub(variable, text), found


def _syntax(text: str, message: str) -> ConditionError:
    found = _FIRST_ERROR.search(message)
    if found is None:  # what the parser could not even report, such as nesting beyond its limit
        return ConditionError(text, message.rpartition(": ")[2].splitlines()[0], 1)
    line, column, detail = int(found[1]), int(found[2]), found[3]
    reason = _syntax_reason(detail)
    if "\n" in text.strip():
        reason += f", in line {line} of the expression"
    return ConditionError(text, reason, column)


def _syntax_reason(detail: str) -> str:
    kind, _, rest = detail.partition("input ")
    token = rest.removesuffix(" expecting <EOF>").partition(" expecting ")[0]
    if "token recognition" in kind:
        token = kind.partition("at: ")[2]
    if not token:
        inner = re.search(r'msg: "([^"]+)"', detail)
        return inner[1].lower() if inner else detail
    word = token.strip("'")
    if word == "<EOF>":
        return "the expression ends too early"
    if word.removeprefix(".") in _RESERVED:
        name = word.removeprefix(".")
        return f'{name} is a word of CEL\'s own; a field of that name is written ["{name}"]'
    if word.startswith("= "):
        return "a single = is no operator; == compares"
    if word[:1] in "&|" and len(word.strip()) == 1:
        return f"a single {word[0]} is no operator; it is {word[0] * 2}"
    if word[:1] in ('"', "'") or token.startswith("''"):
        return f"the string {token[1:-1]} has no end, or an escape that CEL does not know"
    return f"unexpected {token}"


def _reason(text: str, error: Exception, variables: Mapping[str, Any]) -> str:
    message = str(error)
    if isinstance(error, KeyError):
        name = str(error.args[0]).strip("'\"")
        path = re.search(rf"\w[\w.]*?\.{re.escape(name)}\b", text)
        where = f"no field {path[0] if path else repr(name)}"
        return f"{where}; has({path[0]}) asks whether it is there" if path else where
    if isinstance(error, ArithmeticError):
        return message.removesuffix(" in CEL expression").rstrip(".")
    if undefined := re.match(r"Undefined variable or function: '(\w+)'", message):
        return _undefined(text, undefined[1], variables)
    if message.startswith("No such overload"):
        return "an operator, function or field does not fit the type of its value"
    if message.startswith("Conversion Error"):
        return f"a value has no CEL type: {message.removeprefix('Conversion Error: ')}"
    # The library ends its errors with general advice; the first sentence is the fact.
    fact = re.split(r"\. (?:CEL does not|Check function)", message)[0]
    return fact.splitlines()[0].rstrip(".:")


def _undefined(text: str, name: str, variables: Mapping[str, Any]) -> str:
    if not re.search(rf"\b{name}\s*\(", text):
        return f"unknown name {name!r}; known here: {', '.join(sorted(variables))}"
    if name in _FUNCTIONS:
        return f"{name}() does not take arguments of these types"
    return f"unknown function {name}()"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 120 else line[:119] + "…")
