"""Compare-and-set on a real server."""

from __future__ import annotations

import pytest
from tests.conftest import eventually, mesh_client, run

from opsmesh.router.kv import Bucket, Conflict
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import RUNS, WINDOWS


def test_second_create_conflicts(nats_server: EmbeddedServer) -> None:
    """A key is created once; who comes second learns it."""

    async def body() -> None:
        async with mesh_client() as client:
            bucket = Bucket(client, RUNS)
            assert await bucket.get("a.b") is None
            revision = await bucket.put("a.b", b"1")
            with pytest.raises(Conflict):
                await bucket.put("a.b", b"2")
            await bucket.put("a.b", b"3", revision=revision)
            with pytest.raises(Conflict):
                await bucket.put("a.b", b"4", revision=revision)
            entry = await bucket.get("a.b")
            assert entry is not None
            assert entry.value == b"3"

    run(body())


def test_other_clients_read_the_bucket(nats_server: EmbeddedServer) -> None:
    """The bucket is an ordinary NATS KV: nats-py's own client reads what we wrote."""

    async def body() -> None:
        async with mesh_client() as client:
            await Bucket(client, RUNS).put("a.b", b"1")
            theirs = await client.jetstream().key_value(RUNS)
            assert (await theirs.get("a.b")).value == b"1"
            await theirs.delete("a.b")
            assert await Bucket(client, RUNS).get("a.b") is None

    run(body())


def test_values_expire(nats_server: EmbeddedServer) -> None:
    """A value with a time to live is gone after it, and the key can be created again."""

    async def body() -> None:
        async with mesh_client() as client:
            bucket = Bucket(client, WINDOWS)
            await bucket.put("p.k", b"1", ttl_s=1)

            async def gone() -> bool:
                return await bucket.get("p.k") is None

            await eventually(gone)
            await bucket.put("p.k", b"2")

    run(body())
