"""Whether this process has been away: asleep, stopped, or cut off from the broker.

The one rule: who has been away may have been replaced, and looks before it writes. Who has not
cannot have been: others take over only from an owner that does not answer for seconds.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from nats.aio.client import Client

#: Seconds between looks at the clock.
TICK: Final = 1.0
#: Seconds after which a look that did not come tells of a sleep: less than an owner may be mute
#: before it is replaced (`owner.PATIENCE`, `owner.MISSES`).
ASLEEP: Final = 2.5


class Vigil:
    """One process and its connection; made inside its event loop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._sleeps = 0
        self._seen_s = _now_s()
        self._loop.call_later(TICK, self._tick)

    def absences(self) -> tuple[int, int]:
        """How often it was asleep, and how often the connection broke: the same answer twice says
        that it was there all the time between."""
        self._look()
        return self._sleeps, self._client.stats["reconnects"]

    def _tick(self) -> None:
        self._look()
        self._loop.call_later(TICK, self._tick)

    def _look(self) -> None:
        now_s = _now_s()
        if now_s - self._seen_s > ASLEEP:
            self._sleeps += 1
        self._seen_s = now_s


def _now_s() -> float:
    # goes on while the machine is suspended, as other hosts do
    return time.clock_gettime(time.CLOCK_BOOTTIME)
