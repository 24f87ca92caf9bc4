"""Times as RFC 3339 in UTC with microseconds: `2026-11-23T09:12:00.123456Z`.

In Python code a time is an int of microseconds since the Unix epoch: the pure functions of the
mesh take and give such numbers, and never read a clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: A second, and its text.
_last = (0, "1970-01-01T00:00:00")


def now_us() -> int:
    """The wall clock, in microseconds since the epoch."""
    return time.time_ns() // 1_000


def format_us(us: int) -> str:
    """RFC 3339 UTC text of `us` microseconds since the epoch."""
    global _last
    seconds, micros = divmod(us, 1_000_000)
    last = _last  # times come in rows, most of them of the same second; threads may take turns here
    if last[0] != seconds:
        t = time.gmtime(seconds)
        text = (
            f"{t.tm_year:04d}-{t.tm_mon:02d}-{t.tm_mday:02d}"
            f"T{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"
        )
        _last = last = (seconds, text)
    return f"{last[1]}.{micros:06d}Z"


def clock(us: int, *, millis: bool = True) -> str:
    """The time on this machine's clock, for people: `09:12:03.123`, with its date when that is not
    today's."""
    moment = datetime.fromtimestamp(us / 1e6).astimezone()
    text = moment.strftime("%H:%M:%S")
    if millis:
        text += f".{moment.microsecond // 1000:03d}"
    today = datetime.now().astimezone().date()
    return text if moment.date() == today else f"{moment:%Y-%m-%d} {text}"


def parse_us(text: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time, which may be finer; ValueError without an
    offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no offset; write it in UTC with a final Z")
    return (moment - _EPOCH) // _MICROSECOND
