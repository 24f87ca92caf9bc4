"""One command's connection to the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.aio.client import Client

from opsmesh.router import connection
from opsmesh.router.settings import Settings

T = TypeVar("T")


def with_client(body: Callable[[Client, Settings], Awaitable[T]]) -> T:
    """Connect, run `body`, close. BrokerUnavailable when nobody answers within a few seconds."""

    async def session() -> T:
        settings = Settings()
        client = await connection.connect(connection.endpoint(settings), name="cli", patient=False)
        try:
            return await body(client, settings)
        finally:
            await client.close()

    return asyncio.run(session())
