"""What installed packages bring, by the groups of their entry points.

To look is to open a file of every installed package, 15 ms where there are 170, and a command looks
dozens of times. So they are looked through once, until a folder of `sys.path` has changed.
"""

from __future__ import annotations

import os
import sys
import time
from importlib.metadata import EntryPoints
from importlib.metadata import entry_points as look
from typing import Any, Final

#: Seconds that a folder must have been as it is: an installer makes a package's folder first, and
#: what it then writes into it changes nothing of the folder around it.
SETTLED: Final = 10.0

_State = tuple[tuple[str, int], ...]
# all of them; of which type depends on the version of Python
_known: tuple[_State, Any] | None = None


def entry_points(group: str) -> EntryPoints:
    """The entry points of a group, as the packages are now."""
    global _known
    state = _folders()
    all_ = _known[1] if _known is not None and _known[0] == state else look()
    if all(time.time() - changed / 1e9 > SETTLED for _, changed in state):
        _known = state, all_
    found: EntryPoints = all_.select(group=group)
    return found


def _folders() -> _State:
    """The folders that packages lie in, and when each was changed."""
    state = []
    for path in sys.path:
        try:
            state.append((path, os.stat(path or ".").st_mtime_ns))  # noqa: PTH116
        except OSError:
            continue
    return tuple(state)
