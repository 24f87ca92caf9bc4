"""The time as the kernel has it: tests stop Python's clocks (freezegun, time-machine), and an event
of such a test is of today all the same."""

from __future__ import annotations

import time

#: clock_gettime(2): the same clock as CLOCK_REALTIME, to some milliseconds; nobody stops it.
_REALTIME_COARSE = 5


def now_ns() -> int:
    """Nanoseconds since the epoch."""
    try:
        return time.clock_gettime_ns(_REALTIME_COARSE)
    except (OSError, AttributeError):  # not Linux
        return time.time_ns()


def elapsed() -> float:
    """Seconds since some moment."""
    try:
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    except (OSError, AttributeError):
        return time.monotonic()
