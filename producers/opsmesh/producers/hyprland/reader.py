"""The thread that reads the event socket in a tight loop, and joins again when it ends.

The compositor drops a client that has 64 events waiting (CUnixImpl::send, src/ipc/s2/Unix.cpp): so
nothing is done here but splitting lines, and nobody is waited for.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from opsmesh.producers.errors import ProducerError
from opsmesh.producers.feed import Feed
from opsmesh.producers.hyprland import instance, lines
from opsmesh.producers.hyprland.lines import Line, Malformed
from opsmesh.schemas import times

#: Lines that wait for the mesh, at most.
FEED: Final = 4096
#: Bytes without a newline that are no line any more.
LONGEST_LINE: Final = 4096
#: Seconds until an instance that ended the connection is joined again: first, longest.
REJOIN_FIRST, REJOIN_LONGEST = 0.05, 5.0
#: Seconds of a connection that make it one that works.
WORKS: Final = 5.0


@dataclass(frozen=True)
class Joined:
    """From here on, what comes is from this instance."""

    folder: Path


@dataclass(frozen=True)
class Left:
    """The connection ended."""


@dataclass(frozen=True)
class Item:
    """What was read, and when: for the event, and for the focus to settle."""

    what: Line | Joined | Left
    at_us: int = field(default_factory=times.now_us)
    at: float = field(default_factory=time.monotonic)


class Reader:
    """Feeds `feed` for as long as the process lives. `malformed`: lines that were none."""

    def __init__(self, root: Path, *, pinned: str) -> None:
        self.feed: Feed[Item] = Feed(FEED)
        self.malformed = 0
        self.example = ""
        self._root = root
        self._pinned = pinned
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Begin to read, in a thread of its own."""
        threading.Thread(target=self._run, name="hyprland", daemon=True).start()

    def check(self) -> None:
        """Raise what has ended the thread, if anything has: out of inotify watches, for example."""
        if self._failure is not None:
            raise ProducerError(f"reading Hyprland's events: {self._failure}") from self._failure

    def _run(self) -> None:
        try:
            self._read_on()
        except BaseException as error:  # noqa: BLE001, RUF100 (the main thread tells it)
            self._failure = error
        finally:
            self.feed.close()

    def _read_on(self) -> None:
        wait, before = REJOIN_FIRST, None
        while True:
            joined = instance.wait(self._root, pinned=self._pinned)
            wait, before = wait if joined.folder == before else REJOIN_FIRST, joined.folder
            self.feed.put(Item(Joined(joined.folder)))
            begun = time.monotonic()
            with joined.events:
                for raw in received(joined.events):
                    self._take(raw)
            self.feed.put(Item(Left()))
            wait = REJOIN_FIRST if time.monotonic() - begun > WORKS else wait
            time.sleep(wait)  # an instance that takes us and ends at once must not be hammered
            wait = min(wait * 2, REJOIN_LONGEST)

    def _take(self, raw: bytes) -> None:
        try:
            line = lines.parse(raw)
        except Malformed as error:
            self.malformed += 1
            self.example = str(error)
            return
        if line is not None:
            self.feed.put(Item(line))


def received(events: socket.socket) -> Iterator[bytes]:
    """Each line without its newline; of one that is too long, its begin; nothing of one that the
    end cuts."""
    rest = b""
    skipping = False
    while True:
        try:
            part = events.recv(65536)
        except OSError:
            return
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            if not skipping:
                yield line
            skipping = False
        if len(rest) > LONGEST_LINE:
            if not skipping:
                yield rest  # longer than any event: it is counted as none
            rest, skipping = b"", True
