"""A journal entry as journalctl gives it in JSON, and its fields as text and numbers.

Nothing here raises, whatever a field holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Entry = Mapping[str, Any]

#: Digits of a number, at most: 64 bits have 20. Python refuses to read thousands.
DIGITS: Final = 20


def text(entry: Entry, name: str) -> str:
    """A field as text: journald gives bytes for what is no UTF-8, and a list for a repeated one."""
    value = entry.get(name)
    if isinstance(value, list):
        if value and all(isinstance(item, int) and 0 <= item < 256 for item in value):
            return bytes(value).decode("utf-8", "replace")
        value = value[0] if value else None
    return value if isinstance(value, str) else ""


def number(entry: Entry, name: str) -> int | None:
    """A field as a number; None where it is missing or none."""
    value = text(entry, name)
    return int(value) if value.isdecimal() and len(value) <= DIGITS else None
