"""Where a run of unittest begins and ends: the outermost suite of a thread that is run.

What a test runs in its turn is what is tested there, and its failures are meant: not told. So is
everything within pytest, which tells by itself.
"""

from __future__ import annotations

import functools
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

#: Keeps frames of this file out of what unittest prints.
__unittest = True

_within = threading.local()


def watch(suite: ModuleType) -> None:
    """Have `unittest.suite` tell of its runs."""
    original = suite.TestSuite.run

    @functools.wraps(original)
    def run(self: Any, result: Any, debug: bool = False) -> Any:
        if debug or getattr(_within, "run", False) or _is_off():
            return original(self, result, debug)
        _within.run = True
        watching = _watching(result)
        try:
            return original(self, result, debug)
        finally:
            _within.run = False
            if watching is not None:
                watching.end()

    suite.TestSuite.run = run


def _is_off() -> bool:
    return os.environ.get("OPSMESH_PYTEST") == "0" or "PYTEST_CURRENT_TEST" in os.environ


def _watching(result: Any) -> Any:
    try:
        from .cases import Watching

        return Watching(result)
    except Exception:  # a run without events, before no run
        return None
