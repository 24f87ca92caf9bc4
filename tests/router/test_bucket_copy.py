"""A bucket that is copied while it is written to."""

from __future__ import annotations

import asyncio
import json

from nats.aio.client import Client
from nats.js.api import StreamConfig
from tests.conftest import mesh_client, run

from opsmesh.router import bucket_copy
from opsmesh.router.server import EmbeddedServer

STREAM = "KV_COPIED"
SUBJECTS = [f"x.{n}" for n in range(3)]


async def write(client: Client) -> None:
    """Every key in turn, some times: whoever reads comes to an end at the latest after it."""
    for subject in SUBJECTS * 10:
        await client.jetstream().publish(subject, b"")


def test_no_key_is_missed(nats_server: EmbeddedServer) -> None:
    """A copy has every key, also those that are written meanwhile."""

    async def body() -> None:
        async with mesh_client() as client, mesh_client() as other:
            config = StreamConfig(name=STREAM, subjects=["x.*"], max_msgs_per_subject=1)
            await client.jetstream().add_stream(config)
            await write(client)
            for _ in range(50):
                writer = asyncio.create_task(write(other))
                lines: list[bytes] = []
                await bucket_copy.save(client, STREAM, lines.append)
                assert sorted({json.loads(line)["subject"] for line in lines}) == SUBJECTS
                await writer

    run(body())
