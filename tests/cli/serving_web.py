"""The page's server on a free port, beside a mesh of a test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from tests.conftest import PATIENCE

from opsmesh.cli.view.follower import Follower
from opsmesh.cli.view.model import View
from opsmesh.cli.web.app import Site
from opsmesh.handlers import http_server
from opsmesh.router.settings import Settings

TOKEN = "token-of-a-test"


@dataclass
class Served:
    """Where it is, and what it shows."""

    url: str
    follower: Follower

    @property
    def view(self) -> View:
        return self.follower.view

    @property
    def entrance(self) -> str:
        """The address that a person is given."""
        return f"{self.url}/#token={TOKEN}"

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Somebody who has come in."""
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE) as client:
            entered = await client.post("/api/session", json={"token": TOKEN})
            client.headers["x-opsmesh-key"] = entered.json()["key"]
            yield client


@asynccontextmanager
async def served(settings: Settings, *, keep: int = 10_000) -> AsyncIterator[Served]:
    """The real server with its follower, in this test's loop."""
    follower = Follower(View(keep=keep), settings)
    site = Site(follower, settings, token=TOKEN)
    server = http_server.server(
        site.app, most=64, grace_s=1, certificate=None, key=None, lifespan="off"
    )
    with contextlib.closing(http_server.listen("127.0.0.1", 0)) as listener:
        url = http_server.url("127.0.0.1", listener, tls=False)
        tasks = [
            asyncio.create_task(follower.run()),
            asyncio.create_task(server.serve(sockets=[listener])),
        ]
        try:
            yield Served(url, follower)
        finally:
            server.should_exit = True
            await tasks[1]
            tasks[0].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
