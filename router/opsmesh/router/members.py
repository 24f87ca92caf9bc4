"""Which members of its variables a CEL expression reads, so that only those need converting.

Handing an event to the CEL library costs ten times as much as evaluating a condition on it (ADR
0003): most of a payload is converted and never looked at. What is not certain is taken whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Path = tuple[str, ...]

#: A string literal. Raw and triple-quoted ones, and comments, are left to `_UNSURE`.
_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|' + r"'(?:\\.|[^'\\\n])*'")
_UNSURE = re.compile(r"""\"{3}|'{3}|\b[rR][bB]?["']|\b[bB][rR]["']|//|`""")


def read(text: str, names: Iterable[str]) -> dict[str, tuple[Path, ...]]:
    """Paths below each name, as `event.payload.unit` is (payload, unit) below event; a name that
    is used in any other way is not in the answer, and must be given whole."""
    if _UNSURE.search(text):
        return {}
    code = _STRING.sub('""', text)
    found = {name: _paths(code, name) for name in names}
    return {name: paths for name, paths in found.items() if paths}


def _paths(code: str, name: str) -> tuple[Path, ...]:
    paths: set[Path] = set()
    for use in re.finditer(rf"(?<![\w.]){re.escape(name)}\b((?:\.[A-Za-z_]\w*)*)\s*(\()?", code):
        path = tuple(use[1].split(".")[1:])
        if use[2]:  # a method of what stands before it
            path = path[:-1]
        if not path:
            return ()
        paths.add(path)
    return tuple(p for p in sorted(paths) if not any(p[:n] in paths for n in range(1, len(p))))


def pick(value: Any, paths: tuple[Path, ...]) -> Any:
    """The value with nothing in it but these paths; what is missing in it stays missing."""
    if not isinstance(value, Mapping):
        return value
    picked: dict[str, Any] = {}
    for path in paths:
        source, target = value, picked
        for name in path[:-1]:
            inner = source.get(name)
            if not isinstance(inner, Mapping):
                if name in source:
                    target[name] = inner
                break
            target = target.setdefault(name, {})
            source = inner
        else:
            if path[-1] in source:
                target[path[-1]] = source[path[-1]]
    return picked
