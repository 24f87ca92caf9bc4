"""A producer as its own process, as the agent runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def producing(name: str, *options: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The producer `name` with its options; what it says is added to `log`. SIGTERM ends it, with
    exit code 0."""
    pairs = [word for pair in options for word in ("-o", pair)]
    command = [sys.executable, "-P", "-m", "opsmesh.producers.host", name, *pairs]
    with log.open("ab") as said:
        process = subprocess.Popen(command, stderr=said)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert process.returncode == 0, log.read_text()
