"""Taking secrets out of a payload before it leaves the process that made it.

Pure: values in, values out; what is given is never changed. A text that is replaced becomes
`[redacted:<rule>]`, and redacting twice gives the same as redacting once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from opsmesh.schemas.secret_rules import FIELD_RULES, SECRET_FLAG, VALUE_RULES, FieldRule, ValueRule

__all__ = ["FieldRule", "Finding", "Redactor", "Report", "ValueRule", "redact"]

#: Levels of nesting that are searched; what lies deeper is taken out whole, unseen.
MAX_DEPTH: Final = 100
#: Field names whose rule is remembered.
KNOWN_NAMES: Final = 2048

_MARK = re.compile(r"\[redacted:[a-z0-9_.-]+\]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_V = TypeVar("_V")
_encode = msgspec.json.Encoder().encode


class Finding(NamedTuple):
    """One thing that was taken out: its JSON path, like `$.env[0]`, and the rule that saw it."""

    path: str
    rule: str


Report = list[Finding]


class Redactor:
    """The built-in rules, and those of the user."""

    def __init__(self, extra_rules: Iterable[FieldRule | ValueRule] = ()) -> None:
        extra = tuple(extra_rules)
        self._fields = [*(r for r in extra if isinstance(r, FieldRule)), *FIELD_RULES]
        self._values = [*(r for r in extra if isinstance(r, ValueRule)), *VALUE_RULES]
        rules: list[FieldRule | ValueRule] = [*self._fields, *self._values]
        hints = {hint for rule in rules for hint in rule.hints}
        # A hint that holds another one says nothing more.
        needed = sorted(h for h in hints if not any(o in h for o in hints - {h}))
        self._text_hints = tuple(needed)
        self._hints = tuple(hint.encode() for hint in needed)
        self._always = any(not rule.hints for rule in rules)
        self._rule_of_field = lru_cache(KNOWN_NAMES)(self._field_rule)

    def redact(self, payload: _V) -> tuple[_V, Report]:
        """The payload without secrets, and what was taken out; the same object when nothing was."""
        if not self._suspicious(payload):
            return payload, []
        report: Report = []
        clean = self._walk(payload, "$", report, 0)
        return (clean, report) if report else (payload, report)

    def text(self, text: str) -> str:
        """A single text without secrets."""
        return self._text(text, "$", [])

    def _suspicious(self, payload: Any) -> bool:
        """Whether a rule may match. Searching the JSON text for the hints is much cheaper than
        walking, and than one pattern of all rules."""
        if self._always:
            return True
        try:
            data = _encode(payload).lower()
        except (TypeError, ValueError, RecursionError):
            return True
        return any(map(data.__contains__, self._hints))

    def _walk(self, value: Any, path: str, report: Report, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value, path, report)
        if not isinstance(value, dict | list | tuple):
            return value
        if depth >= MAX_DEPTH:
            return _mark(path, "depth", report)
        if isinstance(value, dict):
            return self._walk_dict(value, path, report, depth)
        items: list[Any] = []
        for n, item in enumerate(value):
            here = f"{path}[{n}]"
            before = value[n - 1] if n else None
            if _is_secret_argument(before, item):
                items.append(_mark(here, "flag", report))
            else:
                items.append(self._walk(item, here, report, depth + 1))
        return items

    def _walk_dict(
        self, value: dict[Any, Any], path: str, report: Report, depth: int
    ) -> dict[Any, Any]:
        clean: dict[Any, Any] = {}
        for name, key, here, item in self._entries(value, path, report):
            if rule := self._rule_of_field(name):
                clean[key] = self._blank(item, here, rule, report, depth)
            else:
                clean[key] = self._walk(item, here, report, depth + 1)
        return clean

    def _entries(
        self, value: dict[Any, Any], path: str, report: Report
    ) -> Iterator[tuple[str, Any, str, Any]]:
        """Each entry as (name, key to store, path, item)."""
        for n, (key, item) in enumerate(value.items()):
            name = str(key)
            shown = self._text(name, f"{path}.*", report)
            if shown != name:  # the key itself is a secret; its place keeps two of them apart
                yield name, f"{shown}#{n}", f"{path}.*", item
            elif _PLAIN_KEY.fullmatch(name):
                yield name, key, f"{path}.{name}", item
            else:
                yield name, key, f'{path}["{name}"]', item

    def _blank(self, value: Any, path: str, rule: FieldRule, report: Report, depth: int) -> Any:
        """Everything under a secret's name, with the shape kept. Truth values and null stay."""
        if isinstance(value, dict) and depth < MAX_DEPTH:
            return {
                key: self._blank(item, here, rule, report, depth + 1)
                for _, key, here, item in self._entries(value, path, report)
            }
        if isinstance(value, list | tuple) and depth < MAX_DEPTH:
            items = enumerate(value)
            return [self._blank(v, f"{path}[{n}]", rule, report, depth + 1) for n, v in items]
        if value is None or isinstance(value, bool) or value == "":
            return value
        if isinstance(value, int | float) and not rule.numbers:
            return value
        if isinstance(value, str) and _MARK.fullmatch(value):
            return value
        return _mark(path, rule.name, report)

    def _field_rule(self, name: str) -> FieldRule | None:
        snake = _HUMP.sub("_", name).lower().replace("-", "_").replace(" ", "_")
        return next((rule for rule in self._fields if rule.pattern.search(snake)), None)

    def _text(self, text: str, path: str, report: Report) -> str:
        lower = text.lower()
        if not self._always and not any(map(lower.__contains__, self._text_hints)):
            return text
        for rule in self._values:
            if rule.hints and not any(map(lower.__contains__, rule.hints)):
                continue
            text = _replace(text, rule, path, report)
        return text


def _replace(text: str, rule: ValueRule, path: str, report: Report) -> str:
    group: str | int = "secret" if "secret" in rule.pattern.groupindex else 0
    parts: list[str] = []
    end = 0
    for match in rule.pattern.finditer(text):
        start, stop = match.span(group)
        if start == stop or _MARK.match(match[group].strip("\"'")):
            continue
        parts += text[end:start], _mark(path, rule.name, report)
        end = stop
    return "".join((*parts, text[end:])) if parts else text


def _is_secret_argument(flag: Any, item: Any) -> bool:
    """Whether `item` of a list follows a flag like `--password` that takes a secret."""
    return (
        isinstance(flag, str)
        and isinstance(item, str)
        and item[:1] not in ("", "-")
        and SECRET_FLAG.fullmatch(flag) is not None
        and not _MARK.fullmatch(item)
    )


def _mark(path: str, rule: str, report: Report) -> str:
    report.append(Finding(path, rule))
    return f"[redacted:{rule}]"


_BUILT_IN: Final = Redactor()


def redact(payload: _V) -> tuple[_V, Report]:
    """`Redactor.redact` with the built-in rules."""
    return _BUILT_IN.redact(payload)
