"""What a producer that watches is to see at one stroke, however long this process has to wait."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import freeze


def put(path: Path, content: str | bytes) -> None:
    """Write a whole file: on a busy machine one that is cut and then written is seen empty."""
    fresh = path.with_name(f"{path.name}~")
    fresh.write_bytes(content if isinstance(content, bytes) else content.encode())
    fresh.rename(path)


@contextmanager
def unseen(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """What is done within is seen by the process afterwards, all of it together."""
    freeze(process)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
