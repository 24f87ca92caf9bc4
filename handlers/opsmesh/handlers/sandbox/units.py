"""Programs that systemd runs for a step, and how nothing of them is left.

They are no children of ours. A unit's name is its own, so that its processes are found by their
control group, also by a successor that knows no more than the name: docs/ledger.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import time
from dataclasses import dataclass
from typing import Final

from opsmesh.handlers.procfs import PROC, procs

#: Seconds that a request to the manager may take, and between looks.
ASK_S: Final = 5.0
LOOK_S: Final = 0.05

_UNSAFE = re.compile(r"[^A-Za-z0-9_]")
#: A unit's name as it stands in a leash's file.
NAME: Final = re.compile(r"opsmesh-[A-Za-z0-9_-]{1,200}\.(?:service|scope)")


@dataclass(frozen=True)
class Unit:
    """One transient unit. `manager`: how systemctl reaches its manager."""

    name: str
    manager: str

    async def stop(self, grace: float) -> None:
        """End every process of it, also when it is about to be started."""
        await self.refuse()
        until = time.monotonic() + grace
        number = signal.SIGTERM
        for _ in range(2):
            while left := await asyncio.to_thread(pids, self.name):
                for pid in left:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, number)
                if time.monotonic() > until:
                    break
                await asyncio.sleep(LOOK_S)
            number, until = signal.SIGKILL, time.monotonic() + ASK_S

    async def refuse(self) -> None:
        """Have it stopped by its manager, which hears of it in the order of the requests."""
        await self._ask("stop", "--no-block")

    async def _ask(self, verb: str, *options: str) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            asked = await asyncio.create_subprocess_exec(
                *("systemctl", self.manager, "--quiet", verb, *options, "--", self.name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            async with asyncio.timeout(ASK_S):
                await asked.wait()


def new(run_id: str, step_id: str, *, manager: str, kind: str = "service") -> Unit:
    """A unit that there is not yet."""
    told = f"{_UNSAFE.sub('_', run_id)[:80]}-{_UNSAFE.sub('_', step_id)[:40]}"
    return Unit(f"opsmesh-{told}-{secrets.token_hex(4)}.{kind}", manager)


def pids(name: str) -> list[int]:
    """The processes of a unit of this host."""
    wanted = f"/{name}".encode()
    found = []
    for one in procs():
        with contextlib.suppress(OSError):
            groups = (PROC / str(one.pid) / "cgroup").read_bytes().splitlines()
            if any(wanted == group[-len(wanted) :] or wanted + b"/" in group for group in groups):
                found.append(one.pid)
    return found
