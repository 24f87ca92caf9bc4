"""A change as people see it: a unified diff, without what a terminal would obey."""

from __future__ import annotations

import difflib
from typing import Final

from opsmesh.schemas import unseen

_UNENDED: Final = "\\ No newline at end of file\n"


def diff(path: str, before: bytes | None, after: bytes | None) -> str:
    """The unified diff of a file; None stands for a file that is not there."""
    old, new = ("/dev/null" if data is None else path for data in (before, after))
    there = [data for data in (before, after) if data is not None]
    if before != after and any(b"\0" in data for data in there):
        sizes = " and ".join(f"{len(data)} bytes" for data in there)
        return f"Binary files {old} and {new} differ ({sizes})\n"
    made = difflib.unified_diff(_shown(before), _shown(after), old, new)
    return "".join(line if line.endswith("\n") else f"{line}\n{_UNENDED}" for line in made)


def _shown(data: bytes | None) -> list[str]:
    text = (data or b"").replace(b"\r\n", b"\n").decode("utf-8", "backslashreplace")
    lines = unseen.escaped(text).split("\n")
    return [f"{line}\n" for line in lines[:-1]] + lines[-1:] * bool(lines[-1])
