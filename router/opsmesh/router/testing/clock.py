"""The virtual clock: time passes when a test says so, and whatever falls due happens in order.

The one rule: nothing in the test kit reads another clock. Its lock is the whole mesh's: the ingest
socket is served from a thread of its own.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from itertools import count
from typing import Final

SECOND_NS: Final = 1_000_000_000


class Clock:
    """Nanoseconds since the epoch, and the calls that wait for their time."""

    def __init__(self, now_ns: int) -> None:
        self.lock = threading.RLock()
        self._now_ns = now_ns
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    @property
    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return self._now_ns

    @property
    def now_us(self) -> int:
        """Microseconds since the epoch, the unit of every time in the mesh."""
        return self._now_ns // 1000

    def advance(self, seconds: float) -> None:
        """Let time pass; each thing that falls due on the way sees its own time as now."""
        if seconds < 0:
            raise ValueError(f"time does not run back: advance({seconds})")
        with self.lock:
            end = self._now_ns + nanoseconds(seconds)
            while self._due and self._due[0][0] <= end:
                due, _, call = heapq.heappop(self._due)
                self._now_ns = max(self._now_ns, due)
                call()
            self._now_ns = end

    def call_at(self, due_ns: int, call: Callable[[], None]) -> None:
        """Make the call when the clock reaches `due_ns`, at the next `advance` at the earliest."""
        heapq.heappush(self._due, (due_ns, next(self._numbers), call))


def nanoseconds(seconds: float) -> int:
    """Whole nanoseconds."""
    return round(seconds * SECOND_NS)
