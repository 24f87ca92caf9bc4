"""The packages producer as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.producers.agent import until


@contextmanager
def producer(
    home: Path, *pairs: str, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """The producer in a process of its own, once it watches."""
    options = [word for pair in pairs for word in ("-o", pair)]
    argv = [*prefix, sys.executable, "-P", "-m", "opsmesh.producers.host", "packages", *options]
    log = home / "packages.log"
    memory = home / "state/opsmesh/producers/packages/memory.json"
    with log.open("ab") as file:
        process = subprocess.Popen(argv, stderr=file)
    try:
        until(memory.exists)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def off(home: Path, **logs: Path) -> list[str]:
    """Options: these logs and no others, and no audit."""
    known = {"pacman": home / "none/pacman.log", "apt": home / "none/history.log", **logs}
    return ["vuln_every=0", *(f"{name}_log={path}" for name, path in known.items())]
