"""Whether our hooks are in marimo's: two small files that say so, for `opsmesh doctor`.

`runtime/marimo/PID.json` is there as long as a kernel or a server is watched: the observer from
outside (producer `marimo`) leaves such a server to us. `state/marimo/kernel.json` and `server.json`
are those of the newest of each, and stay.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
from pathlib import Path

from .guard import COUNT
from .mesh.events import now
from .mesh.spool import private_dir, runtime_dir, state_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What we are tested with.
TESTED = "0.25"


class Note:
    """What is to be known of this process."""

    def __init__(self, kind: str, **facts: Any) -> None:
        self._facts = {
            "kind": kind,
            "pid": os.getpid(),
            "server_pid": os.getppid() if multiprocessing.parent_process() else os.getpid(),
            "marimo": marimo_version(),
            "tested": TESTED,
            **facts,
        }

    def write(self, **facts: Any) -> None:
        """Both files, as of now. On the sender's thread."""
        self._facts.update(facts)
        told = {
            **self._facts,
            "failures": COUNT.failures,
            "first_failure": COUNT.first or None,
            "time": now(),
        }
        data = json.dumps(told).encode()
        live = Path(runtime_dir(), "marimo", f"{os.getpid()}.json")
        for path in (live, Path(state_dir(), "marimo", f"{self._facts['kind']}.json")):
            private_dir(path.parent)
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            temporary.write_bytes(data)
            temporary.replace(path)
        _prune(live.parent)
        atexit.unregister(_remove)
        atexit.register(_remove, str(live), os.getpid())


def marimo_version() -> str:
    """marimo's version; empty when it does not say."""
    with contextlib.suppress(Exception):
        import marimo

        return str(marimo.__version__)
    return ""


def _prune(folder: Path) -> None:
    """Take away what processes left that were killed, as kernels are."""
    for path in folder.glob("[0-9]*.json"):
        if not os.path.exists(f"/proc/{path.stem}"):  # noqa: PTH110
            with contextlib.suppress(OSError):
                path.unlink()


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108
