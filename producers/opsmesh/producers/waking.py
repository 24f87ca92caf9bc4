"""A signal that comes in the instant before a wait ends the wait all the same.

CPython's C handler only notes a signal; its Python handler runs at the main thread's next step. A
signal that is noted between CPython's last look and the system call that waits interrupts nothing,
nor does one that another thread took: the main thread waits on, deaf, until something else comes.
The C handler also writes each signal's number to `signal.set_wakeup_fd`'s descriptor, so a thread
that reads there can interrupt the wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Final

#: What interrupts a wait: ignored unless handled, so that it can harm nobody who comes too late.
POKE: Final = signal.SIGURG
#: Seconds from a signal to the first poke, and from each to the next: the main thread may not have
#: come to its wait when the first one comes, if the machine stood still.
PAUSES: Final = (0.1, 1.0, 2.0)


@contextlib.contextmanager
def waking() -> Iterator[None]:
    """Within, no signal with a Python handler waits for the end of a system call.

    Signals are the main thread's: in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)
    poke = signal.signal(POKE, lambda signum, frame: None)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    over = threading.Event()
    thread = threading.Thread(
        target=_poke, args=(heard, threading.get_ident(), over), name="waking", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        signal.signal(POKE, poke)
        os.close(told)
        thread.join()
        os.close(heard)


def _poke(heard: int, main: int, over: threading.Event) -> None:
    """Until it is over, interrupt what `main` waits for, some times after each signal."""
    while numbers := os.read(heard, 64):
        if not numbers.strip(bytes([POKE])):
            continue
        for pause in PAUSES:
            if over.wait(pause):
                return
            signal.pthread_kill(main, POKE)
