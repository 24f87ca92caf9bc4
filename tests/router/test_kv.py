"""Compare-and-set on a real server."""

from __future__ import annotations

import pytest
from nats.js.errors import KeyNotFoundError
from tests.conftest import eventually, mesh_client, run

from opsmesh.router.kv import MARK_TTL, MAX_BATCH, Bucket, Conflict, Entry, Put
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


def test_put_all_writes_all(nats_server: EmbeddedServer) -> None:
    """A batch writes every key, and its revision is that of the last."""

    async def body() -> None:
        async with mesh_client() as client:
            bucket = Bucket(client, WINDOWS)
            revision = await bucket.put_all([Put(f"p.{n}", b"%d" % n) for n in range(100)])
            entries = [await bucket.get(f"p.{n}") for n in range(100)]
            assert [e.value for e in entries if e] == [b"%d" % n for n in range(100)]
            assert entries[-1] is not None
            assert entries[-1].revision == revision

    run(body())


def test_put_all_is_all_or_nothing(nats_server: EmbeddedServer) -> None:
    """When one key does not stand where it should, nothing is written, and Conflict names it."""

    async def body() -> None:
        async with mesh_client() as client:
            bucket = Bucket(client, WINDOWS)
            revision = await bucket.put_all([Put("p.w", b"1"), Put("p.cursor", b"1", 0)])
            for wrong in (0, revision - 1, revision + 1):
                puts = [Put("p.new", b"2"), Put("p.w", None), Put("p.cursor", b"2", wrong)]
                with pytest.raises(Conflict, match=r"p\.cursor has changed") as caught:
                    await bucket.put_all(puts)
                assert caught.value.key == "p.cursor"
            assert await bucket.get("p.new") is None
            assert await bucket.get("p.w") == Entry("p.w", b"1", revision - 1)
            assert await bucket.get("p.cursor") == Entry("p.cursor", b"1", revision)
            puts[-1] = Put("p.cursor", b"2", revision)
            after = await bucket.put_all(puts)
            assert await bucket.get("p.cursor") == Entry("p.cursor", b"2", after)
            assert await bucket.get("p.w") is None

    run(body())


def test_removed_keys_leave_a_mark(nats_server: EmbeddedServer) -> None:
    """A key that a batch removed is gone for every client, and its mark goes by itself."""

    async def body() -> None:
        async with mesh_client() as client:
            js = client.jetstream()
            bucket = Bucket(client, WINDOWS)
            await bucket.put_all([Put("p.a", b"1"), Put("p.b", b"1")])
            await bucket.put_all([Put("p.a", None), Put("p.b", b"2")])
            assert await bucket.get("p.a") is None
            theirs = await js.key_value(WINDOWS)
            with pytest.raises(KeyNotFoundError) as caught:
                await theirs.get("p.a")
            assert caught.value.op == "DEL"
            mark = await js.get_last_msg(bucket.stream, bucket.subjects.replace(">", "p.a"))
            assert mark.headers is not None
            assert mark.headers["Nats-TTL"] == str(MARK_TTL)
            await bucket.put_all([Put("p.a", b"3"), Put("p.b", b"3")])
            again = await bucket.get("p.a")
            assert again is not None
            assert again.value == b"3"

    run(body())


def test_values_of_a_batch_expire(nats_server: EmbeddedServer) -> None:
    """Each value of a batch has its own time to live; without one it stays."""

    async def body() -> None:
        async with mesh_client() as client:
            bucket = Bucket(client, WINDOWS)
            await bucket.put_all([Put("p.short", b"1", ttl_s=0.2), Put("p.stays", b"1")])

            async def gone() -> bool:
                return await bucket.get("p.short") is None

            await eventually(gone)
            assert await bucket.get("p.stays") is not None

    run(body())


def test_a_batch_has_a_limit(nats_server: EmbeddedServer) -> None:
    """As many keys as the broker takes in a batch are written; more are refused before any is."""

    async def body() -> None:
        async with mesh_client() as client:
            bucket = Bucket(client, WINDOWS)
            puts = [Put(f"p.{n}", b"1") for n in range(MAX_BATCH + 1)]
            with pytest.raises(ValueError, match=f"{MAX_BATCH + 1} keys in one batch"):
                await bucket.put_all(puts)
            assert await bucket.put_all(puts[:MAX_BATCH]) == MAX_BATCH

    run(body())


def test_purge(nats_server: EmbeddedServer) -> None:
    """A purge removes every key that its pattern covers, with its past, and no other."""

    async def body() -> None:
        async with mesh_client() as client:
            bucket = Bucket(client, WINDOWS)
            await bucket.put_all([Put(key, b"1") for key in ("p.a", "p.b.c", "q.a")])
            await bucket.purge("p.>")
            found = [await bucket.get(key) for key in ("p.a", "p.b.c", "q.a")]
            assert [entry.key for entry in found if entry] == ["q.a"]
            await bucket.delete("q.a")
            await bucket.put("q.a", b"2", revision=0)

    run(body())
