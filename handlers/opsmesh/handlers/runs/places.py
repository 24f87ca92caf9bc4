"""How many runs are under way in this process, and how many it takes before another host is asked.

The one rule: it is no limit. Where no other host has a place, a run begins here all the same, as
its profile's concurrency allows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


class Places:
    """Counted in one process; `total` is `runs.places` of the settings, else the processors."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total or os.cpu_count() or 1
        self.taken = 0

    @property
    def free(self) -> int:
        """Runs that could begin here without waiting for a processor."""
        return max(0, self.total - self.taken)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Taken while the body runs."""
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
