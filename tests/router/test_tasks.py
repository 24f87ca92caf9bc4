"""Tasks that are told to end and do not hear it at once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from opsmesh.router import tasks


async def deaf() -> None:
    """Ends when it is told for the second time, as what waits in `asyncio.wait_for` does when the
    first time meets the answer (Python 3.11)."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def left_behind() -> asyncio.Task[None]:
    """A task that nobody has ended, and that runs."""
    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    return task


def test_run_ends_what_is_left() -> None:
    """What a program has left behind ends with it, however often it has to be told."""
    task = tasks.run(left_behind())
    assert task.cancelled()


def test_run_ends_what_is_left_of_a_failure() -> None:
    """The program's own error is told, and what it has left behind ends as well."""
    left: list[asyncio.Task[None]] = []

    async def fails() -> None:
        left.append(await left_behind())
        raise ValueError("itself")

    with pytest.raises(ValueError, match="itself"):
        tasks.run(fails())
    assert left[0].cancelled()
