"""Who holds a run: a process of a host, for a while.

Of a process of this machine it can be known that it is gone. Of any other nothing can be known: the
end of its lease has to be waited for.
"""

from __future__ import annotations

import os
import time
from typing import Final

import msgspec
from nats.nuid import NUID

from opsmesh.handlers.procfs import boot, proc

#: Seconds that a run is its holder's after each write, unless the settings say otherwise.
LEASE: Final = 30.0
#: The shares of a lease after which it is renewed, and after which a holder that could not renew it
#: ends its step: the rest is for ending it.
RENEW_AT, STOP_AT = 1 / 3, 0.8
#: Seconds beyond a lease before a run is taken over.
SLACK: Final = 1.0


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """One holder; `id` tells two of the same process apart.

    `until_us` is the end of its lease by its own clock, for people: a successor measures the
    lease's length by a clock of its own.
    """

    id: str
    host: str
    pid: int
    start: int
    boot: str
    until_us: int = 0

    def __str__(self) -> str:
        return f"{self.host} (pid {self.pid})"


def this_process(host: str) -> Holder:
    """A new holder in this process."""
    own = proc(os.getpid())
    return Holder(
        id=NUID().next().decode(),
        host=host,
        pid=os.getpid(),
        start=own.start if own else 0,
        boot=boot(),
    )


def gone(holder: Holder) -> bool:
    """True when its process is known to have ended; False also when that cannot be known."""
    if holder.boot != boot():
        return False
    found = proc(holder.pid)
    return found is None or found.start != holder.start


def clock() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
