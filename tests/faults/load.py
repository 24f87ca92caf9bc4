"""Load: producers as processes of their own, each of which notes what was acknowledged to it.

They emit as every producer of ours does (`producers.host.Host`): numbered by source and boot, one
at a time, each acknowledged before the next. A note is written after the acknowledgement, so that
what a killed producer noted is never more than what it was told.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.faults.meshes import halt
from tests.router.agent_process import until

#: Processes that emit at the same time.
PRODUCERS = 4
#: One producer: its name, its first number, the number to end before, the seconds between two.
PRODUCER = """
import os, sys, time
from opsmesh.producers.host import Host
name, first, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pause = float(sys.argv[4])
host = Host(name)
for n in range(first, end):
    id = host.emit("load.test", {"n": n, "text": "x" * 100})
    os.write(1, b"%d %s\\n" % (n, id.encode()))
    if pause:
        time.sleep(pause)
"""


class Load:
    """Producers `load-0`, `load-1`, … that emit `each` events each."""

    def __init__(
        self, folder: Path, *, each: int, env: Mapping[str, str] | None = None, pause_s: float = 0
    ) -> None:
        self.each = each
        self._pause_s = pause_s
        self._env = {**os.environ, **(env or {})}
        self._notes = [folder / f"load-{n}.acked" for n in range(PRODUCERS)]
        self._errors = folder / "load.log"
        self._processes: list[subprocess.Popen[bytes]] = []
        for n in range(PRODUCERS):
            self._notes[n].touch()
            self._processes.append(self._start(n, 0))

    def _start(self, which: int, first: int) -> subprocess.Popen[bytes]:
        told = (f"load-{which}", str(first), str(self.each), str(self._pause_s))
        argv = [sys.executable, "-c", PRODUCER, *told]
        with self._notes[which].open("ab") as notes, self._errors.open("ab") as errors:
            return subprocess.Popen(argv, env=self._env, stdout=notes, stderr=errors)

    @property
    def total(self) -> int:
        """Events that are to be emitted in all."""
        return self.each * PRODUCERS

    def acked(self) -> list[str]:
        """The ids that were acknowledged, source by source."""
        return [line.split()[1].decode() for lines in self._lines() for line in lines]

    def count(self) -> int:
        """How many were acknowledged."""
        return sum(path.read_bytes().count(b"\n") for path in self._notes)

    def said(self) -> list[str]:
        """What producers told of on standard error."""
        return self._errors.read_text().splitlines()

    def reached(self, share: float) -> None:
        """Return once this share of all events is acknowledged."""
        self.wait(lambda: self.count() >= share * self.total)

    def more(self, count: int) -> None:
        """Return once `count` more events are acknowledged than now, or all."""
        wanted = min(self.count() + count, self.total)
        self.wait(lambda: self.count() >= wanted)

    def wait(self, condition: Callable[[], bool], *, timeout: float = 180) -> None:
        """Return once the condition holds; at once when a producer fails."""

        def there() -> bool:
            codes = [process.poll() for process in self._processes]
            assert not any(codes), f"producers ended with {codes}: {self.said()[-5:]}"
            return condition()

        until(there, timeout=timeout)

    def kill(self, which: int) -> None:
        """kill -9 of one producer."""
        self._processes[which].kill()
        self._processes[which].wait(30)

    def restart(self, which: int) -> None:
        """Go on after the last event that was acknowledged: the one under way is sent once more, as
        a new event, which is what a producer of something that lasts would do."""
        done = len(self._lines()[which])
        self._processes[which] = self._start(which, done)

    def finish(self, *, timeout: float = 300) -> None:
        """Return once all are acknowledged."""
        self.wait(lambda: all(p.poll() == 0 for p in self._processes), timeout=timeout)
        assert self.count() == self.total

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """No producer does anything while the body runs."""
        alive = [process for process in self._processes if process.poll() is None]
        for process in alive:
            if process.poll() is None:
                halt(process.pid)
        try:
            yield
        finally:
            for process in alive:
                process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End whoever still runs."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
                process.send_signal(signal.SIGCONT)
            process.wait(30)

    def _lines(self) -> list[list[bytes]]:
        # a producer that was killed while it wrote leaves no half line: one write, a few bytes
        return [path.read_bytes().splitlines() for path in self._notes]


@contextlib.contextmanager
def load(
    folder: Path, total: int, *, env: Mapping[str, str] | None = None, pause_s: float = 0
) -> Iterator[Load]:
    """About `total` events, from the body's beginning on; each producer rests for `pause_s` between
    two, for a fault that takes longer than the load would."""
    made = Load(folder, each=total // PRODUCERS, env=env, pause_s=pause_s)
    try:
        yield made
    finally:
        made.end()
