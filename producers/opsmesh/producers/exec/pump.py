"""Copies what a command writes to where it belongs, as it comes, and keeps the end of it."""

from __future__ import annotations

import contextlib
import os
import selectors
from typing import Final

#: Bytes kept of the end of the output, both streams in the order in which they came.
TAIL: Final = 8 * 1024
#: Bytes copied at once.
CHUNK: Final = 64 * 1024
#: Copies after the command's end: more than the largest pipe can hold.
DRAIN_TURNS: Final = 32


class Pump:
    """Copies from sources to targets until it is closed, and then closes the sources.

    `closed`: the reader of our output has gone away; `last_key`: the last byte that was typed.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._tail = bytearray()
        self._sources: set[int] = set()
        self.closed = False
        self.last_key = b""

    def add(self, source: int, target: int, *, keep: bool) -> None:
        """Copy `source` to `target`; `keep`: it is output, its end is kept, and it is ours."""
        if keep:  # never standard input: whoever shares it with us would get it non-blocking too
            os.set_blocking(source, False)
            self._sources.add(source)
        self._selector.register(source, selectors.EVENT_READ, (target, keep))

    def wake_on(self, descriptor: int) -> None:
        """Leave `turn` when `descriptor` can be read."""
        self._selector.register(descriptor, selectors.EVENT_READ, None)

    def turn(self, wait: float | None) -> bool:
        """Copy once; False when nothing was there."""
        copied = False
        for key, _ in self._selector.select(wait):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, CHUNK)
                continue
            target, keep = key.data
            copied = self._copy(key.fd, target, keep=keep) or copied
        return copied

    def _copy(self, source: int, target: int, *, keep: bool) -> bool:
        try:
            data = os.read(source, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # the other end of a pseudo terminal is closed
            data = b""
        if not data:
            self._selector.unregister(source)
            return False
        if keep:
            self._tail += data
            del self._tail[:-TAIL]
        else:
            self.last_key = data[-1:]
        try:
            _write(target, data)
        except OSError:  # let the command feel it, as it would without us
            self.closed = self.closed or keep
            self._selector.unregister(source)
            if keep:
                self._sources.discard(source)
                os.close(source)
        return True

    def drain(self) -> None:
        """Copy what is there already; not for ever, for something may go on writing."""
        for _ in range(DRAIN_TURNS):
            if not self.turn(0):
                return

    def tail(self) -> str:
        """The end of the output."""
        return self._tail.decode("utf-8", "replace")

    def close(self) -> None:
        """Let go of all sources."""
        self._selector.close()
        for source in self._sources:
            os.close(source)


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:  # somebody else made our output non-blocking
            selector = selectors.DefaultSelector()
            selector.register(target, selectors.EVENT_WRITE)
            selector.select()
            selector.close()
