"""A bucket that is copied while it is written to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json

from nats.aio.client import Client
from nats.js.api import StreamConfig
from tests.conftest import mesh_client, run

from opsmesh.router import bucket_copy
from opsmesh.router.server import EmbeddedServer

STREAM = "KV_COPIED"
#: Seconds between two writes: whoever reads must be able to come to an end.
PAUSE = 0.002
SUBJECTS = [f"x.{n}" for n in range(3)]


async def write(client: Client) -> None:
    """Every key in turn, without end."""
    for subject in itertools.cycle(SUBJECTS):
        await client.jetstream().publish(subject, b"")
        await asyncio.sleep(PAUSE)


def test_no_key_is_missed(nats_server: EmbeddedServer) -> None:
    """A copy has every key, however often it is written meanwhile."""

    async def body() -> None:
        async with mesh_client() as client, mesh_client() as other:
            config = StreamConfig(name=STREAM, subjects=["x.*"], max_msgs_per_subject=1)
            await client.jetstream().add_stream(config)
            for subject in SUBJECTS:
                await client.jetstream().publish(subject, b"")
            writer = asyncio.create_task(write(other))
            try:
                for _ in range(150):
                    lines: list[bytes] = []
                    await bucket_copy.save(client, STREAM, lines.append)
                    assert sorted({json.loads(line)["subject"] for line in lines}) == SUBJECTS
            finally:
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writer

    run(body())
