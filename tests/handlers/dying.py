"""The handlers, with a place at which they kill themselves: `python -m tests.handlers.dying PLACE
COUNT`. When COUNT runs have come to that place, the process is killed as by kill -9.

Everything is the product's own; what is added looks at what passes by.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

from nats.aio.client import Client

from opsmesh.handlers import serve
from opsmesh.handlers.runs.ledger import Held, Ledger, Run
from opsmesh.handlers.runs.services import Services
from opsmesh.handlers.server import Server
from opsmesh.router import connection
from opsmesh.router.settings import Settings
from opsmesh.schemas.envelope import Event

#: Every place, in the order in which a run of two steps passes them.
PLACES: Final = (
    "before the intent",
    "after the intent",
    "before the second step",
    "after the second step has been noted",
    "before the end",
    "after the end",
    "after the result event",
)


class Places:
    """Where runs are; who has come to the fatal place stays there."""

    def __init__(self, fatal: str, count: int) -> None:
        self._fatal = fatal
        self._count = count

    @property
    def at_intent(self) -> bool:
        """Whether the fatal place is before or after the intent's write."""
        return self._fatal.endswith("the intent")

    async def passes(self, place: str, runs: int = 1) -> None:
        """Some runs come by."""
        if place != self._fatal:
            return
        self._count -= runs
        if self._count <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()


class Watched(Ledger):
    """The ledger, with places before and after each write."""

    def __init__(self, client: Client, places: Places, lease_s: float) -> None:
        super().__init__(client, lease_s=lease_s)
        self._places = places

    async def create_all(self, runs: Sequence[Run]) -> list[Held]:
        if runs:
            await self._places.passes("before the intent", len(runs))
        held = await super().create_all(runs)
        if runs:
            await self._places.passes("after the intent", len(runs))
        return held

    def create_now(self, run: Run) -> Held | None:
        """At a place around the intent no run begins before its intent is on disk: all of them
        have to come to that place, and one that went ahead would not (tests/handlers/test_lone_run
        is about those)."""
        return None if self._places.at_intent else super().create_now(run)

    async def write(self, run: Run, revision: int) -> int:
        last = run.steps[-1]
        if run.state == "succeeded":
            before, after = "before the end", "after the end"
        elif last.id == "second" and last.state == "started":
            before, after = "before the second step", "after the second step has been noted"
        else:
            before, after = "", ""
        await self._places.passes(before)
        written = await super().write(run, revision)
        await self._places.passes(after)
        return written


def exchange(server: Server, services: Services) -> None:
    """Give a process that has not started other services."""
    server._services = server.profiles._services = services


async def main(place: str, count: int) -> None:
    """Serve until killed."""
    settings, places = Settings(), Places(place, count)
    client = await connection.connect(connection.endpoint(settings, role="admin"), name="handlers")
    await serve.wait_for_streams(client)
    server = Server(client, settings)
    publish = server.publish

    async def watched(event: Event) -> None:
        await publish(event)
        if event.topic == "automation.run.succeeded":
            await places.passes("after the result event")

    exchange(
        server,
        dataclasses.replace(
            server._services,
            ledger=Watched(client, places, settings.runs.lease),
            publish=watched,
        ),
    )
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
