"""Ending tasks for sure.

nats-py waits with `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that meets the
answer: a loop that was told to end goes on. So it is told until it hears.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Seconds before a task that has not ended is told again.
AGAIN: Final = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, and return when they have ended; what they raise is dropped."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, which comes to an end: of what is left then, that one tells each task once,
    and waits for ever for one that did not hear."""

    async def body() -> T:
        try:
            return await main
        finally:
            ours = asyncio.current_task()
            await end(task for task in asyncio.all_tasks() if task is not ours)

    return asyncio.run(body())
