"""What went wrong with agents' hooks: a few lines in a file, which `opsmesh doctor` reads.

A hook has nobody to tell: its agent must not notice. Standard library's smallest parts only.
"""

from __future__ import annotations

import os
import time

from opsmesh.router import paths

#: Bytes that are kept, and as many again of those before.
MAX_KEPT = 32 << 10
#: Characters of one line.
MAX_LINE = 200
#: Seconds after which a failure is history.
RECENT = 86_400.0


def path() -> str:
    """Where they are."""
    return paths.state_dir() + "/producers/agent-hook/failures.log"


def note(what: str) -> None:
    """Add a line; silent where that is not possible."""
    name = path()
    line = " ".join(what[:MAX_LINE].split())
    try:
        paths.private_dir(name.rpartition("/")[0])
        file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, f"{int(time.time())} {line}\n".encode(errors="replace"))
            full = os.fstat(file).st_size > MAX_KEPT
        finally:
            os.close(file)
        if full:
            os.replace(name, name + ".1")  # noqa: PTH105
    except OSError:
        return


def recent(now: float) -> list[tuple[float, str]]:
    """Those of the last day, the oldest first: when, and what."""
    found = []
    for name in (path() + ".1", path()):
        try:
            with open(name, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                lines = file.read().splitlines()
        except OSError:
            continue
        for line in lines:
            at, _, what = line.partition(" ")
            if at.isdecimal() and float(at) > now - RECENT:
                found.append((float(at), what))
    return found
