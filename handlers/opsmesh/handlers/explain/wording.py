"""Times, spans and values in the words of an explanation. Times are local, for people."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from opsmesh.schemas import durations

#: Characters of a value that are shown.
VALUE_MAX: Final = 60


def span(us: int) -> str:
    """`2.5s`, `1h30m`; no finer than milliseconds, and no finer than seconds from a minute on."""
    if us <= 0:
        return "0s"
    if us < 1000:
        return "under 1ms"
    seconds = us / 1e6
    if seconds >= 86400:
        days, rest = divmod(round(seconds), 86400)
        hours = rest // 3600
        return f"{days}d{hours}h" if hours else f"{days}d"
    return durations.text(round(seconds) if seconds >= 60 else round(seconds, 3))


def value(found: Any) -> str:
    """A value as JSON, cut when it is long; what is not there is `absent`."""
    if found is None:
        return "absent"
    if isinstance(found, datetime):
        return found.isoformat()
    text = msgspec.json.encode(found, enc_hook=str).decode()
    return text if len(text) <= VALUE_MAX else text[: VALUE_MAX - 1] + "…"


def count(number: int, noun: str) -> str:
    """`1 event`, `4 events`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
