"""`python -m opsmesh.router.containers.begin MODULE`: become a component, in its container.

The one rule: it holds the mesh's lock, together with the other containers, for the life of the
process. So `opsmesh up` cannot begin beside them, nor one of them beside `opsmesh up`.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from opsmesh.router import paths
from opsmesh.router.supervisor_state import LOCK

#: Exit code where it cannot begin just now (EX_TEMPFAIL); Docker tries again, ever more slowly.
BUSY: Final = 75


def _become(module: str, lock: int) -> NoReturn:
    os.set_inheritable(lock, True)
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 (compose.yaml's own word)


def main(argv: Sequence[str]) -> int:
    """Returns only where the component cannot begin."""
    if len(argv) != 1:
        print("usage: python -m opsmesh.router.containers.begin MODULE", file=sys.stderr)
        return 2
    if (lock := share()) is None:
        print("the mesh runs by opsmesh up: opsmesh down, then make compose-up", file=sys.stderr)
        return BUSY
    _become(argv[0], lock)


def share() -> int | None:
    """A descriptor that shares the lock; None when a supervisor has it for itself."""
    folder = Path(paths.private_dir(paths.runtime_dir()))
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
