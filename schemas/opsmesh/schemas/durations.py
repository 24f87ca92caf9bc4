"""Durations as people write them in profiles and options: `90s`, `2m`, `1.5h`, `1h30m`.

In Python code a duration is a float of seconds. A bare number is refused, except 0: whether `5`
means seconds or minutes is what its reader would have to guess.
"""

from __future__ import annotations

import re
from typing import Final

#: Seconds in each unit.
UNITS: Final = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|[smhdw])", re.ASCII)
_WHOLE = re.compile(rf"(?:{_PART.pattern}\s*)+", re.ASCII)


class DurationError(ValueError):
    """`text` is no duration."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"duration {text!r} is not a number with a unit ({', '.join(UNITS)}), like 90s or 1h30m"
        )
        self.text = text


def parse(text: str) -> float:
    """The seconds in `text`; DurationError (a ValueError) when it is no duration."""
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    if not _WHOLE.fullmatch(stripped):
        raise DurationError(text)
    return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(stripped))


def read(value: object) -> float:
    """The seconds of a value in a document: text, or a bare 0; ValueError for anything else."""
    if isinstance(value, str):
        return parse(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and value == 0:
        return 0.0
    like = f"{value!r}s" if number else "30s"
    raise ValueError(f"{value!r} is no duration; write it with its unit, like {like}")


def text(seconds: float) -> str:
    """A short text of `seconds` that `parse` reads back: `1h30m`, `2.5s`, `250ms`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms" if seconds else "0"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [(f"{hours}h", hours), (f"{minutes}m", minutes), (f"{round(rest, 3):g}s", rest)]
    return "".join(part for part, amount in parts if amount)
