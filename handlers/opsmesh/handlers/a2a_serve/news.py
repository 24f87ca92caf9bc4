"""How a task goes on, as it goes on: every write of its run's record is heard."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from a2a.types import Task
from nats.aio.client import Client
from nats.aio.msg import Msg

from opsmesh.handlers.a2a_serve import standing
from opsmesh.handlers.a2a_serve.records import Record
from opsmesh.handlers.runs.ledger import Ledger

#: Seconds between looks for news that were not heard.
LOOK_S: Final = 10.0
#: Seconds between looks for one that was heard.
SOON_S: Final = (0.0, 0.02, 0.1, 0.5, 1.0)


async def now(ledger: Ledger, record: Record) -> Task:
    """The task as it stands."""
    held = await ledger.get(record.run_key)
    return standing.task(record, held.run if held is not None else None)


async def follow(client: Client, ledger: Ledger, record: Record) -> AsyncGenerator[Task, None]:
    """The task now, and again whenever there is news, until nothing follows by itself."""
    heard = asyncio.Event()

    async def hear(_: Msg) -> None:
        heard.set()

    subscription = await client.subscribe(ledger.subject(record.run_key), cb=hear)
    last = ""
    try:
        while True:
            # what is heard may not be stored yet, so it is looked for more than once
            for delay in SOON_S if heard.is_set() else (0.0,):
                heard.clear()
                await asyncio.sleep(delay)
                task = await now(ledger, record)
                if standing.mark(task) != last:
                    break
            if (mark := standing.mark(task)) != last:
                last = mark
                yield task
            if task.status.state in standing.TERMINAL:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await heard.wait()
    finally:
        with contextlib.suppress(Exception):
            await subscription.unsubscribe()
