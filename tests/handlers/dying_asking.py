"""The handlers, with a place in a question's life at which they kill themselves: `python -m
tests.handlers.dying_asking PLACE`.

Everything is the product's own; what is added looks at what passes by.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from typing import Final

from tests.handlers.dying import exchange

from opsmesh.handlers import serve
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.handlers.runs.waiting import Index
from opsmesh.handlers.server import Server
from opsmesh.router import connection
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import Event

#: Every place before somebody has answered, and after, in their order.
ASKING: Final = (
    "before the index",
    "after the index",
    "after the question is in the ledger",
    "after it was told",
)
ANSWERED: Final = (
    "before the end is told",
    "after the end is told",
    "after the index knows of the end",
    "after the step is noted",
)


def passes(place: str, fatal: str) -> None:
    """Come by a place; the fatal one is the last."""
    if place == fatal:
        os.kill(os.getpid(), signal.SIGKILL)


class Watched(Ledger):
    """The ledger, with places after its writes."""

    fatal = ""

    async def write(self, run: Run, revision: int) -> int:
        written = await super().write(run, revision)
        if run.question is not None:
            passes("after the question is in the ledger", self.fatal)
        if any(step.state == "started" and step.asked for step in run.steps):
            passes("after the step is noted", self.fatal)
        return written


class WatchedIndex(Index):
    """The index, with places around its writes."""

    fatal = ""

    async def put(self, question_id: str, run_key: str) -> None:
        passes("before the index", self.fatal)
        await super().put(question_id, run_key)
        passes("after the index", self.fatal)

    async def end(self, question_id: str, run_key: str) -> None:
        await super().end(question_id, run_key)
        passes("after the index knows of the end", self.fatal)


async def main(place: str) -> None:
    """Serve until killed."""
    settings = Settings()
    client = await connection.connect(connection.endpoint(settings, role="admin"), name="handlers")
    await serve.wait_for_streams(client)
    server = Server(client, settings)
    publish = server.publish
    Watched.fatal = WatchedIndex.fatal = place

    async def watched(event: Event) -> None:
        ends = event.topic.rpartition(".")[2] in ("granted", "expired")
        if ends:
            passes("before the end is told", place)
        await publish(event)
        if event.topic == "automation.approval.requested":
            passes("after it was told", place)
        if ends:
            passes("after the end is told", place)

    services = dataclasses.replace(
        server._services,
        ledger=Watched(client, lease_s=settings.runs.lease),
        publish=watched,
    )
    services.__dict__["index"] = WatchedIndex(client)
    exchange(server, services)
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
