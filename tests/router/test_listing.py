"""What a broker has more of than it names at a time."""

from __future__ import annotations

import asyncio

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError
from tests.conftest import mesh_client, run

from opsmesh.router import listing
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import EVENTS


@pytest.mark.parametrize("count", [listing.PAGE, listing.PAGE + 1])
def test_every_consumer_is_found(nats_server: EmbeddedServer, count: int) -> None:
    """Those beyond the first answer, too; and where that is full and the last, no more."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            await js.add_stream(StreamConfig(name="MANY", subjects=["many"]))
            names = {f"c{n}" for n in range(count)}
            making = (
                ConsumerConfig(name=name, mem_storage=True, ack_policy=AckPolicy.NONE)
                for name in names
            )
            await asyncio.gather(*(js.add_consumer("MANY", one, timeout=60) for one in making))
            assert set(await listing.consumers(js, "MANY")) == names

    run(body())


def test_streams(nats_server: EmbeddedServer) -> None:
    """Every stream is named, and what is asked of one that is not there is refused."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            assert EVENTS in {one.config.name for one in await listing.streams(js)}
            with pytest.raises(NotFoundError):
                await listing.consumers(js, "NOTHING")

    run(body())
