"""A mesh that has nothing to do: the memory and the processor time of each of its processes.

Producers that this machine has no tool for are stood in for by ones that load what every producer
loads, and then wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from figure import Figure, FigureError, Target
from lab import LOOK, Lab, check_runs, end, process
from opsmesh.router import supervisor_state
from opsmesh.router.supervisor_state import State

#: Seconds that the mesh gets to start, and to come to rest before it is measured.
START: Final = 30.0
REST: Final = 4.0
#: How many producers the targets are for.
PRODUCERS: Final = 5
#: A producer with nothing to watch.
STAND_IN: Final = """
import signal
from opsmesh.producers import host

class Waiting:
    name, topics = "stand-in", ("build.finished",)
    def available(self):
        return None
    def run(self, emit):
        while True:
            signal.pause()

host.run(Waiting())
"""
#: Seconds of processor time in one tick of /proc/PID/stat.
TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


async def idle(lab: Lab) -> list[Figure]:
    """Resident memory in all, and processor time a minute."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise FigureError("this system has no /proc/PID/smaps_rollup")
    seconds = max(0.5, 20.0 * lab.scale)
    with process("up") as supervisor, contextlib.ExitStack() as stack:
        state = await _settled(supervisor)
        real = sum(1 for c in state.components if c.pid and c.name.startswith("producer:"))
        stood_in = [stack.enter_context(_stand_in()) for _ in range(PRODUCERS - real)]
        await asyncio.sleep(min(REST, seconds))
        names = {c.pid: c.name for c in state.components if c.pid} | {state.pid: "supervisor"}
        names |= dict.fromkeys(stood_in, "producer:stand-in")
        before = _processes(names)
        await asyncio.sleep(seconds)
        after = _processes(names)
    if gone := [facts["name"] for pid, facts in before.items() if pid not in after]:
        raise FigureError(f"ended while the mesh was idle: {', '.join(gone)}")
    rows = []
    for pid, facts in after.items():
        cpu_s = facts.pop("cpu_s") - before.get(pid, {"cpu_s": 0.0})["cpu_s"]
        rows.append({**facts, "cpu_s_a_minute": round(cpu_s * 60 / seconds, 3)})
    producers = sum(1 for name in names.values() if name.startswith("producer:"))
    details = {
        "seconds": seconds,
        "producers": {"real": real, "stand-ins": producers - real},
        "processes": rows,
    }
    whole = f"broker, agent, handlers, sink, supervisor, {producers} producers"
    return [
        Figure(
            name="idle_rss",
            what="resident memory, each process by itself: what several share counts for each",
            unit="MB",
            ours=[round(sum(row["rss_mb"] for row in rows), 1)],
        ),
        Figure(
            name="idle_pss",
            what=f"resident memory in all, shared pages counted once ({whole})",
            unit="MB",
            ours=[round(sum(row["pss_mb"] for row in rows), 1)],
            target=Target(of="value", at="most", limit=200.0),
            details=details,
        ),
        Figure(
            name="idle_cpu",
            what="processor time a minute",
            unit="s",
            ours=[round(sum(row["cpu_s_a_minute"] for row in rows), 3)],
            target=Target(of="value", at="most", limit=0.3),
        ),
    ]


@contextlib.contextmanager
def _stand_in() -> Iterator[int]:
    running = subprocess.Popen([sys.executable, "-c", STAND_IN], stderr=subprocess.DEVNULL)
    try:
        yield running.pid
    finally:
        end(running)


async def _settled(supervisor: subprocess.Popen[bytes]) -> State:
    """What the supervisor says once every component runs; FigureError names those that do not."""
    deadline = time.monotonic() + START
    while True:
        check_runs(supervisor)
        state = supervisor_state.running()
        if state is not None and state.settled:
            return state
        if time.monotonic() > deadline:
            waiting = [c.name for c in state.components if c.state != "running"] if state else []
            what = ", ".join(waiting) or "the supervisor"
            raise FigureError(f"not running within {START:g} s: {what}")
        await asyncio.sleep(LOOK)


def _processes(names: dict[int, str]) -> dict[int, dict[str, Any]]:
    """The facts of each process and of everything that it has started."""
    found = {}
    parents = _parents()
    for pid in parents:
        name = _name(pid, names, parents)
        if name is None:
            continue
        try:
            found[pid] = {"name": name, **_memory(pid), "cpu_s": _cpu_s(pid)}
        except (OSError, KeyError):  # it has ended meanwhile
            continue
    return found


def _name(pid: int, names: dict[int, str], parents: dict[int, int]) -> str | None:
    """Its component's name, marked where it is a child of the component's process."""
    if pid in names:
        return names[pid]
    parent = parents.get(pid, 0)
    above = _name(parent, names, parents) if parent > 1 else None
    return above and f"{above.removesuffix(' (child)')} (child)"


def _parents() -> dict[int, int]:
    parents = {}
    for pid in _pids():
        try:
            parents[pid] = int(_stat(pid)[1])
        except OSError:
            continue
    return parents


def _pids() -> Iterable[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat after the name, which may hold spaces and parentheses."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * TICK


def _memory(pid: int) -> dict[str, float]:
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0]) / 1024
    return {"rss_mb": round(sizes["Rss"], 1), "pss_mb": round(sizes["Pss"], 1)}
