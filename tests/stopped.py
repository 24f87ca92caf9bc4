"""The suite, while the machine seems to stand still here and there: `make test-stopped`.

Random processes of the run are stopped for some seconds (SIGSTOP), as on a machine that swaps or
has too much to do: young ones more often, for most races are in how something begins. A test that
fails by it has a race, or the product has: what waits for a condition bears it. It has no end of
its own to prove, so nothing here is part of `make test`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: What a process of the run has in its environment.
MARK: Final = "OPSMESH_TEST_STOPPED"
#: Stops in a second; seconds of one, on average and at most; processes that are stopped at once.
RATE, MEAN, LONGEST, AT_ONCE = 10, 0.7, 4.0, 8
#: Seconds in which a process is young, and how often one of those is taken.
YOUNG, OFTEN = 2.0, 0.6
#: Tests that stop processes themselves, or go by what a shell says of a stopped job.
EXCEPT: Final = (
    "tests/faults",
    "tests/handlers/test_owner.py",
    "tests/producers/test_shell_hooks.py",
)


@dataclass
class Stopper:
    """Stops processes of the run with this mark; `note` is told of each."""

    mark: bytes
    chance: random.Random
    note: Path
    _born: dict[int, float] = field(default_factory=dict)
    _others: set[int] = field(default_factory=set)
    _stopped: dict[int, float] = field(default_factory=dict)

    def step(self) -> None:
        """Let go of whose time is over, and stop another one."""
        now = time.monotonic()
        self.go_on(now)
        ours = self._look(now)
        young = [pid for pid in ours if now - self._born[pid] < YOUNG]
        chosen = young if young and self.chance.random() < OFTEN else ours
        if chosen and len(self._stopped) < AT_ONCE:
            self._stop(self.chance.choice(chosen), now)

    def go_on(self, now: float) -> None:
        """Let go of every process whose time is over by then."""
        for pid in [pid for pid, until in self._stopped.items() if until <= now]:
            del self._stopped[pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _look(self, now: float) -> list[int]:
        """The run's processes; a new one's mark stands in its environment."""
        alive = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
        self._others &= alive
        self._born = {pid: born for pid, born in self._born.items() if pid in alive}
        for pid in alive - self._born.keys() - self._others - {os.getpid()}:
            with contextlib.suppress(OSError):
                if self.mark in Path(f"/proc/{pid}/environ").read_bytes():
                    self._born[pid] = now
                else:
                    self._others.add(pid)
        return list(self._born)

    def _stop(self, pid: int, now: float) -> None:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            if stat.rpartition(")")[2].split()[0] in "TtZ":  # by somebody else
                return
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            os.kill(pid, signal.SIGSTOP)
            seconds = min(self.chance.expovariate(1 / MEAN), LONGEST)
            self._stopped[pid] = now + seconds
            with self.note.open("a") as file:
                text = command.decode("utf-8", "replace")[:200]
                print(f"{time.time():.2f} {pid} {seconds:.2f} s {text}", file=file)


def main(arguments: list[str]) -> int:
    """Run pytest with these arguments, and stop its processes until it ends; its exit code."""
    seed = int(os.environ.get("SEED") or time.time())
    note = Path(".stopped.log")
    note.write_text(f"SEED={seed}\n")
    print(f"SEED={seed}; what is stopped is told in {note}", flush=True)
    mark = f"{MARK}={seed}"
    argv = [sys.executable, "-m", "pytest", *(f"--ignore={path}" for path in EXCEPT), *arguments]
    run = subprocess.Popen(argv, env={**os.environ, MARK: str(seed)})
    stopper = Stopper(mark.encode(), random.Random(seed), note)
    try:
        while run.poll() is None:
            stopper.step()
            time.sleep(1 / RATE)
    finally:
        stopper.go_on(float("inf"))
    return run.returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
