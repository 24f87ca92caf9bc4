"""Ending tasks for sure.

nats-py waits with `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that meets the
answer: a loop that was told to end goes on. So it is told until it hears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

#: Seconds before a task that has not ended is told again.
AGAIN: Final = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, and return when they have ended; what they raise is dropped."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
