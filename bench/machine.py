"""What the numbers depend on, in facts that name neither the machine nor its folders."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from opsmesh.router import server

#: File systems that lie in memory: what is synced there is not on any disk.
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def facts(folder: Path) -> dict[str, Any]:
    """The machine, for somebody who compares two runs; `folder` is where the stores lie."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_gib": _memory_gib(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "opsmesh": version("opsmesh"),
        "nats_py": version("nats-py"),
        "nats_server": _nats_server(),
        "filesystem": filesystem(folder),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def filesystem(folder: Path) -> str:
    """The kind of file system that a folder lies on, "unknown" where the system does not say."""
    best = (0, "unknown")
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return best[1]
    real = folder.resolve()
    for line in lines:  # proc(5): … root, mount point, options, optional fields, "-", type, …
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].encode().decode("unicode_escape"))
        if real.is_relative_to(point) and len(point.parts) >= best[0]:
            best = (len(point.parts), after.split()[0])
    return best[1]


def _memory_gib() -> float:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return round(pages * size / 2**30, 1)


def _nats_server() -> str:
    ran = subprocess.run(
        [server.find_binary(), "--version"],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return ran.stdout.strip().rpartition(" ")[2].removeprefix("v")
