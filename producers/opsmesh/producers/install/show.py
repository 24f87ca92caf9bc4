"""A change as people see it: a unified diff, without what a terminal would obey."""

from __future__ import annotations

import difflib
import re
from typing import Final

#: Control characters, a tab aside: text of somebody's file must not steer the terminal.
CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNENDED: Final = "\\ No newline at end of file\n"


def diff(path: str, before: bytes | None, after: bytes | None) -> str:
    """The unified diff of a file; None stands for a file that is not there."""
    old, new = ("/dev/null" if data is None else path for data in (before, after))
    made = difflib.unified_diff(_shown(before), _shown(after), old, new)
    return "".join(line if line.endswith("\n") else f"{line}\n{_UNENDED}" for line in made)


def _shown(data: bytes | None) -> list[str]:
    text = (data or b"").replace(b"\r\n", b"\n").decode("utf-8", "backslashreplace")
    lines = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).split("\n")
    return [f"{line}\n" for line in lines[:-1]] + lines[-1:] * bool(lines[-1])
