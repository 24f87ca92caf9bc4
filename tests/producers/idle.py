"""How much a producer's process needs while nothing happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.producers.agent import until

#: Readings of the process's state that must be alike before it is taken for idle.
ALIKE = 20


def idle(name: str, options: Mapping[str, str], home: Path) -> tuple[float, float]:
    """Resident memory in MB of a producer that has come to rest in the mesh of `home`, and the
    seconds of CPU that it has used since its first line of log until then."""
    log = home / f"{name}.idle.log"
    pairs = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    argv = [sys.executable, "-P", "-m", "opsmesh.producers.host", name, *pairs]
    with log.open("wb") as file:
        process = subprocess.Popen(argv, stderr=file)
    try:
        until(lambda: b"watching" in log.read_bytes() or process.poll() is not None)
        begun = _cpu_s(process.pid)
        seen: list[float] = []

        def at_rest() -> bool:
            seen.append(_cpu_s(process.pid))
            return len(seen) > ALIKE and len({*seen[-ALIKE:]}) == 1

        until(at_rest)
        assert process.poll() is None, log.read_text()
        return _rss_mb(process.pid), _cpu_s(process.pid) - begun
    finally:
        process.terminate()
        process.wait(60)


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no process {pid}")


def _cpu_s(pid: int) -> float:
    # after the command's name, which may hold spaces: state is field 3, utime 14, stime 15
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
