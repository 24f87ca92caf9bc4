"""A producer as its own process, as the agent runs it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def started(name: str, *options: str, log: Path) -> subprocess.Popen[bytes]:
    """The producer `name` with its options, for a test that ends it in its own way."""
    pairs = [word for pair in options for word in ("-o", pair)]
    command = [sys.executable, "-P", "-m", "opsmesh.producers.host", name, *pairs]
    with log.open("ab") as said:
        return subprocess.Popen(command, stderr=said)


@contextmanager
def producing(name: str, *options: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The producer `name` with its options; what it says is added to `log`. SIGTERM ends it, with
    exit code 0."""
    process = started(name, *options, log=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert process.returncode == 0, log.read_text()
