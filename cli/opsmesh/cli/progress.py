"""What long work says of itself on a terminal: one line, written over; a pipe hears nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from opsmesh.cli import sizes

#: Seconds between two words.
SAY_S: Final = 0.5


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """What takes the work's name and its bytes until now; the line is gone at the end."""
    shown = sys.stderr.isatty() and not quiet
    said = 0.0

    def say(what: str, done: int) -> None:
        nonlocal said
        if shown and time.monotonic() - said > SAY_S:
            said = time.monotonic()
            sys.stderr.write(f"\r\x1b[K{what}: {sizes.text(done)}")
            sys.stderr.flush()

    try:
        yield say
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
