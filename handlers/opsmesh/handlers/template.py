"""Templates: values with `${{ CEL }}` placeholders, compiled when a profile is loaded.

A value that is one placeholder and nothing else keeps the answer's type; within other text the
answer is written as text. What a placeholder gives is never read again: no second expansion, no
splitting, so that one argument stays one argument whatever an event holds. `$${{` stands for
`${{` itself.

A secret (`${{ secret("name") }}`) may stand only in texts that are neither kept nor readable to
others: `Template(…, secrets=True)`, which `fill` alone answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from opsmesh.handlers.errors import TemplateError
from opsmesh.handlers.secrets import reference
from opsmesh.router.conditions import ConditionError, Expression
from opsmesh.schemas import durations
from opsmesh.schemas.nearest import did_you_mean

#: What a placeholder may name; `events` are all events of a firing that is about several, `steps`
#: holds the results of earlier steps by their ids.
NAMES: Final = ("event", "events", "host", "run", "steps", "vars")

#: Those of them whose values come from outside: an event's, and what programs said of it.
OUTSIDE: Final = frozenset({"event", "events", "steps"})

_OPEN: Final = "${{"
_CLOSE: Final = "}}"
# CEL's strings may hold `}}` and are skipped; nested maps, which end in it, need a space: `} }`.
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|\}\}')

#: A whole placeholder within a text, for those who only look for them; `inside` is its expression.
PLACEHOLDER: Final = re.compile(
    r"""(?<!\$)\$\{\{(?P<inside>(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?!\}\}).)*)\}\}""",
    re.DOTALL,
)


@dataclass(frozen=True)
class Secret:
    """The place of a secret within a text."""

    name: str


class Template:
    """One text with its placeholders compiled; TemplateError when one cannot be read."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str, *, secrets: bool = False, also: Sequence[str] = ()) -> None:
        """`also` may be named beside NAMES; `secrets` may be referred to."""
        self.text = text
        self._parts: tuple[str | Expression | Secret, ...] = tuple(_split(text, also))
        if self.secrets and not secrets:
            raise TemplateError(
                f'secret("{self.secrets[0]}")',
                "no secret can stand here: the text is kept, or shown, or others can read it; "
                "docs/secrets.md tells where one can",
            )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the secrets that it refers to."""
        return tuple(part.name for part in self._parts if isinstance(part, Secret))

    @property
    def parts(self) -> tuple[str | Expression | Secret, ...]:
        """The text between placeholders, and what stands in them, in order."""
        return self._parts

    @property
    def names(self) -> frozenset[str]:
        """Top-level names that the placeholders read."""
        return frozenset().union(*(p.names for p in self._parts if isinstance(p, Expression)))

    @property
    def lead(self) -> str:
        """The text before the first placeholder."""
        return self._parts[0] if self._parts and isinstance(self._parts[0], str) else ""

    @property
    def leads(self) -> frozenset[str]:
        """Top-level names that may decide its first character."""
        found: frozenset[str] = frozenset()
        for part in self._parts:
            if isinstance(part, str):
                break
            found |= part.names if isinstance(part, Expression) else frozenset()
        return found

    def render(self, variables: Mapping[str, Any]) -> Any:
        """The value for these variables; TemplateError names the placeholder without an answer."""
        if len(self._parts) == 1 and isinstance(self._parts[0], Expression):
            return plain(_answer(self._parts[0], variables))
        return self.render_text(variables)

    def render_text(self, variables: Mapping[str, Any]) -> str:
        """The value as text, also when the template is one placeholder."""
        return self.fill(variables, _no_secret)

    def fill(self, variables: Mapping[str, Any], secret: Callable[[str], str]) -> str:
        """The value as text, with what `secret` gives for each name."""
        return "".join(_part(part, variables, secret) for part in self._parts)


class Rendered:
    """A compiled value: text, or mappings and lists of such, whose keys are taken as they are."""

    __slots__ = ("_value", "source")

    def __init__(self, value: Any) -> None:
        self.source = value
        self._value = _compile(value)

    @property
    def names(self) -> frozenset[str]:
        """Top-level names that the placeholders read."""
        return _names(self._value)

    def render(self, variables: Mapping[str, Any]) -> Any:
        """The value with every placeholder answered; TemplateError when one cannot be."""
        return _render(self._value, variables)


def compile_value(value: Any) -> Rendered:
    """Compile every text within `value`; TemplateError when a placeholder cannot be read."""
    return Rendered(value)


def as_text(value: Any) -> str:
    """An answer within text: `true`, `3`, RFC 3339, nothing for null, JSON for lists and maps."""
    value = plain(value)
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def plain(value: Any) -> Any:
    """An answer as JSON can hold it: times become RFC 3339, durations like `1h30m`, bytes text."""
    if isinstance(value, datetime):
        return msgspec.to_builtins(value)
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        return f"-{durations.text(-seconds)}" if seconds < 0 else durations.text(seconds)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _part(
    part: str | Expression | Secret, variables: Mapping[str, Any], secret: Callable[[str], str]
) -> str:
    if isinstance(part, str):
        return part
    return secret(part.name) if isinstance(part, Secret) else as_text(_answer(part, variables))


def _no_secret(name: str) -> str:
    raise TemplateError(f'secret("{name}")', "no secret is given here")


def _split(text: str, also: Sequence[str] = ()) -> list[str | Expression | Secret]:
    parts: list[str | Expression | Secret] = []
    literal, at = "", 0
    while (start := text.find(_OPEN, at)) >= 0:
        if start > at and text[start - 1] == "$":
            literal += text[at : start - 1] + _OPEN
            at = start + len(_OPEN)
            continue
        literal += text[at:start]
        inner = start + len(_OPEN)
        end = next((m for m in _TOKEN.finditer(text, inner) if m[0] == _CLOSE), None)
        if end is None:
            raise TemplateError(text[inner:].strip(), "the placeholder has no closing }}")
        if literal:
            parts.append(literal)
        parts.append(_expression(text[inner : end.start()].strip(), also))
        literal, at = "", end.end()
    literal += text[at:]
    return [*parts, literal] if literal else parts


def _expression(text: str, also: Sequence[str]) -> Expression | Secret:
    try:
        name = reference.name_of(text)
    except ValueError as error:
        raise TemplateError(text, str(error)) from None
    if name is not None:
        return Secret(name)
    try:
        expression = Expression(text)
    except ConditionError as error:
        where = "" if error.column is None else f" (column {error.column})"
        raise TemplateError(text, error.reason + where) from error
    if expression.last:
        raise TemplateError(text, "last() is for conditions; a placeholder knows its events")
    names = (*NAMES, *also)
    for name in sorted(expression.names.difference(names)):
        near = did_you_mean(name, names)
        known = near or f"; there are {', '.join(names)}"
        raise TemplateError(text, f"unknown name {name!r}{known}")
    return expression


def _answer(expression: Expression, variables: Mapping[str, Any]) -> Any:
    try:
        return expression.evaluate(variables)
    except ConditionError as error:
        raise TemplateError(expression.text, error.reason) from error


def _compile(value: Any) -> Any:
    if isinstance(value, str):
        return Template(value) if _OPEN in value else value
    if isinstance(value, list):
        return [_compile(item) for item in value]
    if isinstance(value, dict):
        return {key: _compile(item) for key, item in value.items()}
    return value


def _render(value: Any, variables: Mapping[str, Any]) -> Any:
    if isinstance(value, Template):
        return value.render(variables)
    if isinstance(value, list):
        return [_render(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: _render(item, variables) for key, item in value.items()}
    return value


def _names(value: Any) -> frozenset[str]:
    if isinstance(value, Template):
        return value.names
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return frozenset().union(*map(_names, value))
    return frozenset()
