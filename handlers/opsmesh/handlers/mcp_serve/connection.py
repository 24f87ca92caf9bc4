"""The server's way to the mesh: one connection, made when it is needed and again when it is gone.

The one rule: a mesh that is away is an answer with the next step, never the end of the server.
"""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from opsmesh.router import connection
from opsmesh.router.settings import Settings
from opsmesh.schemas.redact import Redactor


class Mesh:
    """Settings, what takes secrets out, and a connection that is looked after."""

    def __init__(self, settings: Settings, redactor: Redactor, *, name: str = "mcp") -> None:
        self.settings = settings
        self.redactor = redactor
        self._name = name
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> Client:
        """A connection that is there; BrokerUnavailable when nobody answers within seconds."""
        async with self._connecting:
            known = self._client
            if known is not None and known.is_connected:
                return known
            await self.close()
            # where the broker is may have changed since: `opsmesh up` takes a free port
            where = connection.endpoint(self.settings, role="admin")
            self._client = await connection.connect(where, name=self._name, patient=False)
            return self._client

    async def close(self) -> None:
        """End the connection, if there is one."""
        client, self._client = self._client, None
        if client is not None and not client.is_closed:
            await client.close()
