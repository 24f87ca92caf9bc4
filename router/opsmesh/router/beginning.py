"""What a component imports before everything else, so that it begins sooner; `over` comes last.

The one rule: only where the process is the component's own (`__main__`), because it is changed.
"""

from __future__ import annotations

import gc
import sys

# Imports make many objects that stay; nobody looks through them for rubbish before `over`.
gc.disable()

# structlog draws tracebacks with rich where that can be imported, which takes 50 ms and 4 MB: a
# component has no need of it, and structlog then prints them as Python does.
sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402, F401

del sys.modules["rich"]


def over() -> None:
    """What was imported stays, and is never looked through; what comes is."""
    gc.freeze()
    gc.enable()
