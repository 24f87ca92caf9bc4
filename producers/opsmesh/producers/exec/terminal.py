"""The terminal of an interactive command: a pseudo terminal between it and the real one.

The command has it as its controlling terminal, so that editors, pagers and password prompts work;
the real one is raw meanwhile, and every key, Ctrl-C included, reaches the command through it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from types import FrameType


def copy_size(source: int, target: int) -> None:
    """Give the terminal `target` the rows and columns of `source`."""
    with contextlib.suppress(OSError):
        size = fcntl.ioctl(source, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)


def open_like(real: int) -> tuple[int, int]:
    """A new pseudo terminal (our end, the command's end) with the settings and size of `real`."""
    ours, theirs = os.openpty()
    termios.tcsetattr(theirs, termios.TCSANOW, termios.tcgetattr(real))
    copy_size(real, theirs)
    return ours, theirs


def open_for_output(real: int) -> tuple[int, int]:
    """A pseudo terminal that passes bytes on unchanged: `real` does what is to be done to them."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    copy_size(real, theirs)
    return ours, theirs


@contextlib.contextmanager
def raw(real: int) -> Iterator[None]:
    """`real` hands over every key as it is; its settings come back at the end."""
    before = termios.tcgetattr(real)
    tty.setraw(real)
    try:
        yield
    finally:
        termios.tcsetattr(real, termios.TCSADRAIN, before)


@contextlib.contextmanager
def following_size(real: int, ours: int, changed: Callable[[], None]) -> Iterator[None]:
    """While in force, a change of `real`'s size reaches `ours`; then `changed` is called."""

    def on_change(signum: int, frame: FrameType | None) -> None:
        copy_size(real, ours)
        changed()

    before = signal.signal(signal.SIGWINCH, on_change)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
