"""`ya sub` as a child process, read in a thread of its own: there while a Yazi is.

`ya` ends at once when no Yazi runs, and tries again every second, for ever, when the last one has
quit. So it is started when somebody listens at Yazi's socket, replaced when another Yazi has taken
the socket over (the old `ya` would find it up to a second later), and ended when nobody is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.feed import Feed
from opsmesh.producers.peer import Peer, identity
from opsmesh.producers.watch import Watch
from opsmesh.producers.yazi import dds
from opsmesh.producers.yazi.lines import Lines
from opsmesh.schemas import times

#: Seconds between two looks at a socket that is there, but where nobody listens: a Yazi binds it
#: a moment before it listens. After the last, its next change is waited for.
LOOKS: Final = (0.02, 0.1, 0.5)
#: Seconds until a `ya` that died under a running Yazi is started again: first, longest.
RESTART_FIRST, RESTART_LONGEST = 0.1, 30.0
#: Seconds that `ya` has to go away before it is killed.
LEAVE: Final = 2.0
#: Bytes that are read at once.
CHUNK: Final = 65536


@dataclass(frozen=True)
class Line:
    """One line of `ya sub`, when it was read, and as which: the three together are unique."""

    text: bytes
    at_us: int
    number: int


@dataclass(frozen=True)
class Listening:
    """From now on lines come from this life of the socket. `deaf_us`: since when nobody listened
    although it was there; None when nothing was missed as far as we know."""

    socket: tuple[int, int]
    at_us: int
    deaf_us: int | None = None


class Subscriber:
    """Puts lines into the feed until it is stopped; never waits for who takes them."""

    def __init__(
        self, ya: str, feed: Feed[Line | Listening], report: Callable[[str], None]
    ) -> None:
        self._command = [ya, "sub", ",".join(dds.KINDS)]
        self._feed, self._report = feed, report
        self._socket: Path = dds.socket_path()
        self._stop_read, self._stop_write = os.pipe()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="ya", daemon=True)
        self.lines = Lines()

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the child and the thread."""
        self._stopped = True
        os.write(self._stop_write, b"x")
        self._thread.join(2 * LEAVE)

    def _run(self) -> None:
        try:
            with Watch(self._socket) as watch:
                self._follow(watch)
        except OSError as error:
            self._report(str(error))
        finally:
            self._feed.close()

    def _follow(self, watch: Watch) -> None:
        looks = list(LOOKS)
        wait = RESTART_FIRST
        deaf_us: int | None = None
        while not self._stopped:
            life, peer = identity(self._socket), self._peer()
            if peer is None or life is None:
                deaf_us = None  # what a Yazi that is gone had told meanwhile, nobody can know
                if self._sleep(watch, looks.pop(0) if looks and life else None):
                    looks, wait = list(LOOKS), RESTART_FIRST
                continue
            try:
                self._feed.put(Listening(life, times.now_us(), deaf_us))
                before = self.lines.count
                died = self._listen(watch, peer, life)
            finally:
                peer.close()
            deaf_us = None
            looks = list(LOOKS)
            if died is not None:
                deaf_us = times.now_us()
                wait = RESTART_FIRST if self.lines.count > before else wait
                self._report(f"ya sub ended with {died}, starts again in {wait:g} s")
                self._sleep(watch, wait)
                wait = min(wait * 2, RESTART_LONGEST)

    def _peer(self) -> Peer | None:
        try:
            return Peer.at(self._socket)
        except OSError as error:
            self._report(f"{self._socket}: {error}")
            return None

    def _sleep(self, watch: Watch, timeout: float | None) -> bool:
        """Wait; True when the socket's way changed."""
        either: list[Any] = [watch, self._stop_read]
        ready, _, _ = select.select(either, [], [], timeout)
        return watch in ready and watch.wait(0)

    def _listen(self, watch: Watch, peer: Peer, life: tuple[int, int]) -> int | None:
        """Read until this life of the socket is over; the exit code of a `ya` that died before."""
        self.lines.begin()
        with self._child() as (child, out):
            any_of: list[Any] = [out, watch, peer, self._stop_read]
            while not self._stopped:
                ready, _, _ = select.select(any_of, [], [])
                if out in ready:
                    if not self._read(out):
                        with contextlib.suppress(subprocess.TimeoutExpired):
                            child.wait(LEAVE)
                        return None if peer.gone() else child.returncode or 0
                elif peer in ready:
                    break
                if watch in ready and watch.wait(0) and identity(self._socket) != life:
                    break
            child.terminate()
            while self._read(out):  # what it had told before
                pass
        return None

    def _read(self, out: int) -> bool:
        data = os.read(out, CHUNK)
        now = times.now_us()
        for number, line in enumerate(self.lines.feed(data)):
            if dds.worth(line):
                self._feed.put(Line(line, now, number))
        return bool(data)

    @contextlib.contextmanager
    def _child(self) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """`ya sub`, and the descriptor that its lines are read from."""
        out, theirs = os.pipe()
        try:
            try:
                child = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=subprocess.DEVNULL,  # a stack trace when no Yazi runs
                )
            finally:
                os.close(theirs)
            try:
                yield child, out
            finally:
                child.terminate()
                try:
                    child.wait(LEAVE)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        finally:
            os.close(out)
