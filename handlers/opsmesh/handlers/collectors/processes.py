"""`process_tree`: the event's process with its parents and children, or all of its unit.

From /proc: which processes there are now. One that has ended is gone, and the piece says so. No
environment is read; command lines lose their secrets word by word.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from opsmesh.handlers.actions.spec import Spec, Text
from opsmesh.handlers.collectors.contract import Piece, Request, Unavailable
from opsmesh.handlers.collectors.coredump import redacted_argv
from opsmesh.handlers.collectors.subject import pid_of, systemctl, unit_of
from opsmesh.handlers.errors import Unstartable
from opsmesh.handlers.procfs import PROC

#: Processes that are shown.
MOST: Final = 500
#: Where control groups are (cgroup v2, and systemd's own hierarchy of v1).
CGROUPS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"))
#: Bytes of a command line.
LONGEST: Final = 4096


class ProcessTreeSpec(Spec):
    """Which process or unit; the event's own (`payload.pid`, else `payload.unit`) unless given."""

    pid: Text | None = None
    unit: Text | None = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is told of a process."""

    pid: int
    parent: int
    state: str
    name: str
    user: str
    rss_kib: int
    argv: tuple[str, ...]


class ProcessTree:
    """A process a line, children below their parents."""

    key: ClassVar[str] = "process_tree"
    spec: ClassVar[type[ProcessTreeSpec]] = ProcessTreeSpec

    def __init__(self, spec: ProcessTreeSpec) -> None:
        self._spec = spec

    async def collect(self, request: Request) -> Sequence[Piece]:
        pid = None if self._spec.unit is not None else pid_of(request, self._spec.pid)
        everything = await asyncio.to_thread(_all)
        if pid is not None and pid in everything:
            chosen = _family(everything, pid)
        else:
            unit = unit_of(request, self._spec.unit)
            if not unit:
                gone = "the event names no process (pid) and no unit"
                raise Unavailable(gone if pid is None else f"process {pid} is gone")
            chosen = set(await _of_unit(request, unit)) & everything.keys()
            if not chosen:
                raise Unavailable(f"no process of {unit} runs")
        shown = [everything[one] for one in sorted(chosen)[:MOST]]
        text = "".join(_tree(shown, request))
        facts = {"count": len(chosen), "pids": sorted(chosen)[:50]}
        return [request.piece(text, facts=facts, truncated=len(chosen) > MOST)]


async def _of_unit(request: Request, unit: str) -> Iterable[int]:
    argv = [*systemctl(request), "show", "--property=ControlGroup", "--value", "--", unit]
    try:
        ended = await request.run(argv)
    except Unstartable as error:
        raise Unavailable(error.reason) from None
    group = ended.stdout_tail.strip()
    if not ended.ok or not group.startswith("/") or ".." in group.split("/") or group == "/":
        raise Unavailable(f"{unit} has no control group: it does not run")
    return await asyncio.to_thread(_of_group, group)


def _of_group(group: str) -> set[int]:
    found: set[int] = set()
    for root in CGROUPS:
        for folder, _, names in os.walk(f"{root}{group}"):
            if "cgroup.procs" in names:
                with contextlib.suppress(OSError, ValueError):
                    text = Path(folder, "cgroup.procs").read_text()
                    found.update(int(line) for line in text.split())
    return found


def _all() -> dict[int, Shown]:
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[int(entry.name)] = _read(entry)
    return found


def _read(entry: Path) -> Shown:
    text = (entry / "stat").read_bytes()
    head, _, rest = text.rpartition(b")")
    fields = rest.split()
    uid = entry.stat().st_uid
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    with (entry / "cmdline").open("rb") as file:
        words = file.read(LONGEST).rstrip(b"\0").split(b"\0")
    return Shown(
        pid=int(entry.name),
        parent=int(fields[1]),
        state=fields[0].decode(),
        name=head.partition(b"(")[2].decode(errors="replace"),
        user=user,
        rss_kib=int(fields[21]) * os.sysconf("SC_PAGESIZE") // 1024,
        argv=tuple(word.decode(errors="replace") for word in words if word),
    )


def _family(everything: Mapping[int, Shown], pid: int) -> set[int]:
    """The process, its parents, and all that it started."""
    children = defaultdict(list)
    for one in everything.values():
        children[one.parent].append(one.pid)
    found: set[int] = set()
    below = [pid]
    while below:
        child = below.pop()
        if child not in found:
            found.add(child)
            below += children[child]
    above = everything[pid].parent
    while above in everything and above not in found:
        found.add(above)
        above = everything[above].parent
    return found


def _tree(shown: Sequence[Shown], request: Request) -> list[str]:
    known = {one.pid: one for one in shown}
    children: dict[int, list[Shown]] = defaultdict(list)
    for one in shown:
        children[one.parent if one.parent in known else 0].append(one)
    lines = [f"{'PID':>8} {'USER':<12} S {'RSS KiB':>9}  COMMAND\n"]
    stack = [(one, 0) for one in reversed(children[0])]
    while stack:
        one, depth = stack.pop()
        argv = " ".join(redacted_argv(one.argv, request)) if one.argv else f"[{one.name}]"
        lines.append(
            f"{one.pid:>8} {one.user:<12} {one.state} {one.rss_kib:>9}  "
            f"{'  ' * min(depth, 20)}{' '.join(argv.split())[:400]}\n"
        )
        stack += [(child, depth + 1) for child in reversed(children.get(one.pid, ()))]
    return lines
