"""A user's own topics, from YAML. Every problem is told with file, line and the nearest valid word.

A topic with a mistake is left out; the others of the file are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import yaml

from opsmesh.schemas.envelope import SEVERITIES, Severity, check_topic
from opsmesh.schemas.nearest import did_you_mean
from opsmesh.schemas.topics import VERSION_KEY, Payload, Topic

#: Version of the file's own format.
FILE_VERSION: Final = 1
#: What a field may be; with a `?` at its end, the field may be absent.
TYPES: Final[dict[str, Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list[Any],
    "list[str]": list[str],
    "list[int]": list[int],
    "list[float]": list[float],
    "dict": dict[str, Any],
}

_FILE_KEYS: Final = ("version", "topics")
_TOPIC_KEYS: Final = ("description", "owner", "severity", "payload", "example")
#: Levels of the file that have lines of their own: topics, a topic, its keys, a payload's fields.
_DEPTH: Final = 4

_Path = tuple[str, ...]


class _Mistake(Exception):
    """Something wrong at a place of the file."""

    def __init__(self, path: _Path, text: str) -> None:
        super().__init__(text)
        self.path = path


def read(path: Path) -> tuple[list[tuple[str, Topic]], list[str]]:
    """The file's topics, each with the place that defines it, and the problems found."""
    try:
        text = path.read_text()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
        lines = dict(_lines(node, ()))
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{path}: {error}"]
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        return [], [f"{where}: not YAML: {getattr(error, 'problem', None) or error}"]

    def place(at: _Path) -> str:
        while at and at not in lines:
            at = at[:-1]
        return f"{path}:{lines.get(at, 1)}"

    try:
        entries = _entries(content)
    except _Mistake as mistake:
        return [], [f"{place(mistake.path)}: {mistake}"]
    found, problems = [], []
    for name, entry in entries.items():
        try:
            found.append((place(("topics", str(name))), _topic(name, entry)))
        except _Mistake as mistake:
            problems.append(f"{place(mistake.path)}: {mistake}")
    return found, problems


def _lines(node: yaml.Node | None, path: _Path) -> Iterator[tuple[_Path, int]]:
    if isinstance(node, yaml.MappingNode) and len(path) < _DEPTH:
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                at = (*path, key.value)
                yield at, key.start_mark.line + 1
                yield from _lines(value, at)


def _entries(content: Any) -> dict[Any, Any]:
    if content is None:
        return {}
    fields = _mapping(content, (), "the file")
    _only(fields, _FILE_KEYS, ())
    if fields.get("version") != FILE_VERSION:
        raise _Mistake(
            ("version",), f"version: expected {FILE_VERSION}, got {fields.get('version')!r}"
        )
    return _mapping(fields.get("topics") or {}, ("topics",), "topics")


def _topic(name: Any, entry: Any) -> Topic:
    at: _Path = ("topics", str(name))
    try:
        check_topic(str(name))
    except ValueError as error:
        raise _Mistake(at, str(error)) from error
    fields = _mapping(entry, at, f"topic {name}")
    _only(fields, _TOPIC_KEYS, at)
    description = _text(fields, "description", None, at)
    owner = _text(fields, "owner", "user", at)
    severity = _text(fields, "severity", "error", at)
    if severity not in SEVERITIES:
        raise _Mistake(
            (*at, "severity"),
            f"{name}: severity {severity!r} is not one of {', '.join(SEVERITIES)}"
            + did_you_mean(severity, SEVERITIES),
        )
    payload = _payload(name, fields.get("payload") or {}, (*at, "payload"))
    example = _mapping(fields.get("example") or {}, (*at, "example"), f"{name}: example")
    return Topic(
        name,
        payload=payload,
        owner=owner,
        description=description,
        severity=cast(Severity, severity),
        example=example,
    )


def _payload(name: str, spec: Any, at: _Path) -> type[msgspec.Struct]:
    required, optional = [], []
    for field, text in _mapping(spec, at, f"{name}: payload").items():
        here = (*at, str(field))
        if not isinstance(field, str) or not field.isidentifier() or field == VERSION_KEY:
            raise _Mistake(here, f"{name}: {field!r} cannot be a field's name")
        kind = TYPES.get(str(text).removesuffix("?"))
        if kind is None:
            raise _Mistake(
                here,
                f"{name}: field {field}: type {text!r} is not one of {', '.join(TYPES)}, "
                f"each with ? when the field is optional{did_you_mean(str(text), TYPES)}",
            )
        if str(text).endswith("?"):
            optional.append((field, kind | None, None))
        else:
            required.append((field, kind))
    title = "".join(word.capitalize() for word in name.replace("_", ".").split("."))
    return msgspec.defstruct(
        title, [*required, *optional], bases=(Payload,), frozen=True, kw_only=True
    )


def _text(fields: dict[Any, Any], key: str, default: str | None, at: _Path) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str) or not value:
        raise _Mistake((*at, key), f"{at[-1]}: {key}: expected a text, got {value!r}")
    return value


def _mapping(value: Any, at: _Path, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise _Mistake(at, f"{what}: expected keys and values, got {value!r}")
    return value


def _only(fields: dict[Any, Any], known: Iterable[str], at: _Path) -> None:
    known = tuple(known)
    for key in fields:
        if key not in known:
            raise _Mistake(
                (*at, str(key)),
                f"unknown key {key!r}, expected {', '.join(known)}{did_you_mean(str(key), known)}",
            )
