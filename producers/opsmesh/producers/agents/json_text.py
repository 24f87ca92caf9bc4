"""Edits of a JSON text that leave everything else as it stands: spaces, order, numbers as written.

Offsets in, text out. A text has to be whole JSON before it is edited (`check`): comments, which
some programs allow in theirs, are an error that says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.producers.errors import Unusable

_DECODER: Final = json.JSONDecoder()
_SPACE: Final = " \t\r\n"
#: How deep we indent where the text does not show it.
INDENT: Final = "  "


@dataclass(frozen=True)
class Part:
    """A member of an object, or an element of an array: it begins (with its key), its value
    begins, it ends."""

    start: int
    value: int
    end: int
    key: str = ""


def check(path: str, text: str) -> dict[str, Any]:
    """The object that the text holds; Unusable."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(path, f"is no plain JSON, write the hooks by hand: {error}") from error
    if not isinstance(found, dict):
        raise Unusable(path, "holds no JSON object")
    return found


def parts(text: str, at: int) -> tuple[list[Part], int]:
    """What is in the object or array that begins at an offset, and where its bracket closes."""
    keyed, closing = text[at] == "{", "}" if text[at] == "{" else "]"
    found: list[Part] = []
    at = _skip(text, at + 1)
    while text[at] != closing:
        start, key = at, ""
        if keyed:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # the colon
        value = at
        _, at = _DECODER.raw_decode(text, at)
        found.append(Part(start, value, at, key))
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found, at


def at(text: str, *way: str | int) -> int | None:
    """Where the value begins that a way of keys and numbers leads to; None when nothing is there.
    Of two members with one name the last one counts, as for every reader."""
    found = _skip(text, 0)
    for step in way:
        inside = parts(text, found)[0] if text[found] in "{[" else []
        part: Part | None
        if isinstance(step, int):
            part = inside[step] if step < len(inside) else None
        else:
            part = next((one for one in reversed(inside) if one.key == step), None)
        if part is None:
            return None
        found = part.value
    return found


def add(text: str, where: int, value: Any, *, depth: int, key: str = "") -> str:
    """The text with one more member or element, the last, in the object or array at an offset,
    whose own members stand `depth` steps from the edge."""
    step, end = _indent(text), "\r\n" if "\r\n" in text else "\n"
    made = json.dumps(value, indent=step, ensure_ascii=False).replace("\n", end + step * depth)
    if key:
        made = f"{json.dumps(key, ensure_ascii=False)}: {made}"
    found, close = parts(text, where)
    line = end + step * depth
    if found:
        last = found[-1].end
        return f"{text[:last]},{line}{made}{text[last:]}"
    return f"{text[: where + 1]}{line}{made}{end}{step * (depth - 1)}{text[close:]}"


def drop(text: str, where: int, numbers: Collection[int]) -> str:
    """The text without those members or elements of the object or array at an offset."""
    for number in sorted(numbers, reverse=True):
        found, close = parts(text, where)
        start, end = found[number].start, found[number].end
        if number:  # with the comma before it
            start = found[number - 1].end
        elif len(found) > 1:  # with the comma behind it, and the space up to the next
            end = found[1].start
        else:
            start, end = where + 1, close
        text = text[:start] + text[end:]
    return text


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _indent(text: str) -> str:
    """One step, as the first line that is indented shows it."""
    for line in text.splitlines():
        rest = line.lstrip(" \t")
        if rest and rest != line:
            return line[: len(line) - len(rest)]
    return INDENT
