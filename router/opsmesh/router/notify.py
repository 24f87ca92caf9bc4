"""What a component tells whoever supervises it, as sd_notify(3) has it: that it is ready, and then
that it is alive. Under our own supervisor or under systemd, it is the same line.

The one rule: a beat comes from where the work is done. One from a thread of its own would go on
while the work hangs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from types import FrameType
from typing import Final

#: The variable that names the socket; an abstract one begins with `@`.
VARIABLE: Final = "NOTIFY_SOCKET"
#: How long systemd waits for a beat, in microseconds, and for whose: sd_watchdog_enabled(3).
WATCHDOG, WATCHDOG_PID = "WATCHDOG_USEC", "WATCHDOG_PID"
#: Beats for each time that systemd would wait: two may come late.
BEATS: Final = 3

_ready = False


def ready() -> None:
    """Tell whoever supervises this process that it does its work now; nobody does: nothing."""
    global _ready
    _ready = True
    send("READY=1")


def send(text: str) -> None:
    """One message to whoever supervises this process."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), address)


def patience() -> float | None:
    """Seconds that systemd waits for a sign of life of this process; None when it does not."""
    told, whose = os.environ.get(WATCHDOG, ""), os.environ.get(WATCHDOG_PID, "")
    if not told.isdigit() or not int(told) or (whose and whose != str(os.getpid())):
        return None
    return int(told) / 1e6


def alive() -> None:
    """One sign of life. Until the process is ready it asks for more time instead: one that waits
    for its broker may take as long as that takes, and one that hangs at its start may not."""
    seconds = patience()
    if seconds is None:
        return
    send("WATCHDOG=1" if _ready else f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")


async def beat() -> None:
    """Signs of life from this event loop, for ever; returns when nobody waits for any."""
    import asyncio  # who has a loop has it already; producers and the supervisor are light

    seconds = patience()
    while seconds is not None:
        alive()
        await asyncio.sleep(seconds / BEATS)


def beat_from_main_thread() -> None:
    """Signs of life for a program that has no loop: a timer's signal, which Python handles between
    two steps of its main thread. What is seen so is a process that is stopped, or stuck where no
    signal is handled; one that runs in circles, or waits for ever, is not."""
    seconds = patience()
    if seconds is None:
        return
    signal.signal(signal.SIGALRM, _beat)
    signal.setitimer(signal.ITIMER_REAL, seconds / BEATS, seconds / BEATS)


def rest() -> None:
    """End that timer. Python gives signals back to the kernel at its own end, where this one would
    end the process before it has ended well."""
    if patience() is None:
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def _beat(signum: int, frame: FrameType | None) -> None:
    alive()


class Listener:
    """The supervisor's end of one component's socket.

    An abstract address: it leaves no file behind, and a long path of the runtime folder (a socket's
    name ends at 107 bytes) does not matter.
    """

    def __init__(self, name: str) -> None:
        self.address = f"@opsmesh-{os.getpid()}-{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + self.address[1:])

    def heard(self) -> bool:
        """Whether READY=1 has come since the last question."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                found = b"READY=1" in self._socket.recv(4096) or found
        return found

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
