"""What a file would lose if it were an event, JSON lines or a text, and what looks like a secret.

Nothing that is taken out is shown: a person who looks has the file.
"""

from __future__ import annotations

import json
from typing import Any

from opsmesh.schemas.redact import Kept, Redactor


def explain(data: bytes, redactor: Redactor) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(what is taken out, what is left and why), each with the line, and the path in JSON."""
    found: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []
    for first, part in _parts(data):
        kept: list[Kept] = []
        _, report = redactor.event(part, kept=kept)
        text = None if _is_object(part) else part.decode(errors="surrogateescape")
        for one in report:
            where = _where(first, text, one.path, one.at)
            found.append({**where, "rule": one.rule, "size": one.size})
        for near in kept:
            where = _where(first, text, near.path, near.at)
            left.append({**where, "rule": near.rule, "text": near.text, "why": near.why})
    return found, left


def _where(first: int, text: str | None, path: str, at: int) -> dict[str, Any]:
    if text is None:
        return {"where": f"line {first}", "path": path}
    column = at - text.rfind("\n", 0, at)
    return {"where": f"line {first + text.count(chr(10), 0, at)}, column {column}", "path": None}


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """(number of its first line, bytes): one JSON document, JSON lines, or all of it as text."""
    if _is_object(data):
        return [(1, data)]
    lines = [(n, line) for n, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if lines and all(_is_object(line) for _, line in lines):
        return lines
    return [(1, data)]


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False
