"""Bundles between hosts, with a real broker: given away in the background, fetched, checked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from tests.conftest import eventually, freeze, mesh_client, restart, run
from tests.handlers.collecting import Context, collect
from tests.handlers.mesh import mesh

from opsmesh.handlers.bundles import archive, catalog, sharing, store
from opsmesh.handlers.bundles.archive import BadBundle
from opsmesh.handlers.bundles.sharing import Sharing
from opsmesh.handlers.bundles.store import CHUNK, NotShared, Object, Store
from opsmesh.handlers.bundles.verify import verify
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Bundles, Settings
from opsmesh.router.topology import BUNDLES, BUNDLES_STREAM

PROFILE = """
version: 1
profiles:
  triage:
    on: service.start.failed
    actions:
      - id: evidence
        collect:
          items: [package_history, {events: {of: all, since: 1h}}]
          report: true
"""


def bundle(context: Context, *, size: int = 100, run_id: str = "run1", **options: Any) -> Path:
    """A bundle with so many bytes that cannot be compressed."""
    script = f"head -c {size} /dev/urandom"
    item = {"name": "random", "command": ["sh", "-c", script], "max_bytes": size + 1}
    return collect(context, {"items": [item], **options}, run_id=run_id).folder


def sharer(client: Client, context: Context, **settings: Any) -> Sharing:
    place = context().bundles
    return Sharing(client, Bundles(**settings), place, asyncio.Event())


async def chunks(client: Client) -> int:
    """Chunks that lie in the store, whether or not an object has them."""
    info = await client.jetstream().stream_info(BUNDLES_STREAM, subjects_filter="$O.*.C.>")
    return sum((info.state.subjects or {}).values())


def test_of_a_run(nats_server: EmbeddedServer, tmp_path: Path) -> None:
    """What a run collects is in the object store soon, and another host gets it whole."""

    async def body() -> None:
        async with mesh(PROFILE) as one:
            package = {"manager": "pacman", "packages": [{"name": "hello", "operation": "upgrade"}]}
            await one.publish("package.txn.completed", payload=package)
            await one.publish()
            [told] = await one.wait("automation.run.succeeded")
            theirs = Store(one.client)
            [shared] = await eventually(theirs.list)
            assert told.payload["bundles"] == [shared.bundle_id]
            assert shared.told["profile"] == "triage"
            assert shared.told["run_id"] == told.run_id
            known = catalog.merged([], [shared])
            there = tmp_path / "another-host"
            folder = await catalog.fetch(known[0], there, theirs)
            assert verify(folder).intact
            assert "upgrade hello" in (folder / "package_history.txt").read_text()
            assert "package.txn.completed" in (folder / "events.txt").read_text()
            again = catalog.merged(catalog.local(there), [shared])
            assert [one.where for one in again] == ["fetched"]

    run(body())


def test_read_by_nats_py(nats_server: EmbeddedServer, context: Context) -> None:
    """The object is as every client of NATS writes it: nats-py's own reads it."""
    folder = bundle(context, size=3 * CHUNK)

    async def body() -> None:
        async with mesh_client() as client:
            assert await sharer(client, context).once() == 1
            theirs = await client.jetstream().object_store(BUNDLES)
            [info] = await theirs.list()
            assert info.name is not None
            found = await theirs.get(info.name)
            target = io.BytesIO()
            archive.pack(folder, target)
            assert found.data == target.getvalue()

    run(body())


def test_once(nats_server: EmbeddedServer, context: Context) -> None:
    """What was shared is not shared again; what is not to be shared is not."""
    bundle(context, run_id="run1")
    bundle(context, run_id="run2", share=False)

    async def body() -> None:
        async with mesh_client() as client:
            assert await sharer(client, context).once() == 1
            assert await sharer(client, context).once() == 0
            assert [one.told["run_id"] for one in await Store(client).list()] == ["run1"]
            await asyncio.to_thread(bundle, context, run_id="run3")
            assert await sharer(client, context, share=False).once() == 0
            assert await sharer(client, context, shared_age="1us").once() == 0
            assert await sharer(client, context).once() == 1

    run(body())


def test_interrupted(
    nats_server: EmbeddedServer, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that is cut leaves nothing to be seen, and the next one nothing of it behind."""
    bundle(context, size=64 * CHUNK)
    publish, sent = JetStreamContext.publish, [0]

    async def two(self: JetStreamContext, name: str, *args: Any, **more: Any) -> Any:
        if ".C." in name:
            sent[0] += 1
            if sent[0] > 2:  # in the middle of it
                await asyncio.Event().wait()
        return await publish(self, name, *args, **more)

    async def body() -> None:
        async with mesh_client() as client:
            one = sharer(client, context)
            with monkeypatch.context() as slow:
                slow.setattr(JetStreamContext, "publish", two)
                task = asyncio.create_task(one.once())
                await eventually(lambda: sent[0] > 2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await chunks(client) == 2
            assert await Store(client).list() == []
            assert await one.once() == 1
            [shared] = await Store(client).list()
            assert await chunks(client) == -(-shared.size // CHUNK)
            await Store(client).fetch(shared, io.BytesIO())

    run(body())


def test_broker_is_away(
    nats_server: EmbeddedServer, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be shared, or not all of it, is shared when the broker is back, once."""
    monkeypatch.setattr(sharing, "RETRY_S", 0.05)
    monkeypatch.setattr(store, "TIMEOUT", 3.0)
    bundle(context, size=8 * CHUNK)
    publish, sent = JetStreamContext.publish, [0]

    async def body() -> None:
        third, hung, lost = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def cut(self: JetStreamContext, name: str, *args: Any, **more: Any) -> Any:
            sent[0] += ".C." in name
            if ".C." not in name or sent[0] != 3:
                return await publish(self, name, *args, **more)
            third.set()
            await hung.wait()
            try:  # the broker ends with it unread
                return await publish(self, name, *args, **{**more, "timeout": 0.5})
            finally:
                lost.set()

        async with mesh_client() as client:
            monkeypatch.setattr(JetStreamContext, "publish", cut)
            task = asyncio.create_task(sharer(client, context).run())
            await third.wait()
            assert nats_server.process is not None
            await asyncio.to_thread(freeze, nats_server.process)
            hung.set()
            await lost.wait()
            await restart(client, nats_server)
            [shared] = await eventually(Store(client).list)
            assert sent[0] > 3 + shared.size // CHUNK
            await Store(client).fetch(shared, io.BytesIO())
            assert await chunks(client) == -(-shared.size // CHUNK)
            task.cancel()

    run(body())


def test_alone(nats_server: EmbeddedServer, context: Context) -> None:
    """While one process of a host shares, another one leaves it to it."""
    bundle(context)

    async def body() -> None:
        async with mesh_client() as client:
            with sharing.alone(context().bundles) as mine:
                assert mine
                assert await sharer(client, context).once() is None
            assert await sharer(client, context).once() == 1

    run(body())


def test_changed_bundle(nats_server: EmbeddedServer, context: Context) -> None:
    """Evidence that was changed since is not given away."""
    folder = bundle(context)
    (folder / "random").write_text("forged")

    async def body() -> None:
        async with mesh_client() as client:
            await sharer(client, context).once()
            assert await Store(client).list() == []

    run(body())
    assert sharing.mark(folder).read_text() == "refused\n"


def test_room(nats_server: EmbeddedServer, context: Context) -> None:
    """In a full store the oldest bundles make room, whole."""
    settings = Settings(bundles=Bundles(shared_bytes=20 * CHUNK))

    async def body() -> None:
        async with mesh_client(settings) as client:
            for number in range(5):
                run_id = f"run{number}"
                await asyncio.to_thread(bundle, context, size=5 * CHUNK, run_id=run_id)
                await sharer(client, context).once()
            left = await Store(client).list()
            names = [one.told["run_id"] for one in left]
            assert names == [f"run{number}" for number in range(5)][-len(names) :]
            assert 2 <= len(names) < 4
            for one in left:
                await Store(client).fetch(one, io.BytesIO())
            assert await chunks(client) == sum(-(-one.size // CHUNK) for one in left)

    run(body())


async def lie(client: Client, data: bytes, **more: Any) -> str:
    """An object as a host that lies may put it."""
    js = client.jetstream()
    bundle_id = more.pop("bundle_id", "ab" * 32)
    nuid = "lie"
    for at in range(0, len(data), CHUNK):
        await js.publish(f"$O.{BUNDLES}.C.{nuid}", data[at : at + CHUNK])
    name = f"{bundle_id}.tar.zst"
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
    about = {"name": name, "nuid": nuid, "size": len(data), "digest": f"SHA-256={digest}", **more}
    encoded = base64.urlsafe_b64encode(name.encode()).decode()
    await js.publish(f"$O.{BUNDLES}.M.{encoded}", json.dumps(about).encode())
    return str(bundle_id)


@pytest.mark.parametrize(
    ("lies", "said"),
    [
        ({}, "the archive is damaged"),
        ({"size": 3}, "more than the 3 bytes"),
        ({"size": 2**40}, "more than"),
        ({"digest": "SHA-256=AAAA"}, "has another hash than it says"),
        ({"digest": "x" * 5}, "has another hash than it says"),
    ],
)
def test_lies(nats_server: EmbeddedServer, tmp_path: Path, lies: Any, said: str) -> None:
    """What an object says of itself is not believed, and nothing of it is left on disk."""

    async def body() -> None:
        async with mesh_client() as client:
            await lie(client, b"no archive at all", **lies)
            theirs = Store(client)
            [one] = catalog.merged([], await theirs.list())
            with pytest.raises(BadBundle, match=said):
                await catalog.fetch(one, tmp_path, theirs)

    run(body())
    assert list(tmp_path.rglob("*ab*")) == []


def test_bundle_of_another_name(
    nats_server: EmbeddedServer, context: Context, tmp_path: Path
) -> None:
    """A true bundle under another bundle's id is refused: the id is what was asked for."""
    target = io.BytesIO()
    archive.pack(bundle(context), target)

    async def body() -> None:
        async with mesh_client() as client:
            await lie(client, target.getvalue())
            theirs = Store(client)
            [one] = catalog.merged([], await theirs.list())
            with pytest.raises(BadBundle, match="and not abab"):
                await catalog.fetch(one, tmp_path / "host", theirs)

    run(body())


@pytest.mark.parametrize(
    "lies",
    [
        {"options": {"link": {"bucket": "other", "name": "x"}}},
        {"deleted": True},
        {"nuid": "*"},
        {"nuid": "a.>"},
        {"size": "many"},
        {"bundle_id": "../../etc"},
        {"metadata": ["x"]},
    ],
)
def test_no_bundle(nats_server: EmbeddedServer, lies: Any) -> None:
    """Links, patterns and nonsense in the store are no bundles."""

    async def body() -> None:
        async with mesh_client() as client:
            await lie(client, b"x", **lies)
            assert await Store(client).list() == []

    run(body())


def test_part_has_gone(nats_server: EmbeddedServer, context: Context) -> None:
    """A bundle whose first chunks have gone by age is told as such, without waiting."""
    bundle(context, size=4 * CHUNK)

    async def body() -> None:
        async with mesh_client() as client:
            await sharer(client, context).once()
            await client.jetstream().purge_stream(BUNDLES_STREAM, seq=3)
            [one] = await Store(client).list()
            with pytest.raises(NotShared, match="bytes are left in the object store"):
                await Store(client).fetch(one, io.BytesIO())

    run(body())


@pytest.mark.slow
def test_large(nats_server: EmbeddedServer, context: Context, tmp_path: Path) -> None:
    """A bundle of 60 MiB is given away and fetched, with every write on disk."""
    bundle(context, size=60 * 2**20)

    async def body() -> Object:
        async with mesh_client() as client:
            await sharer(client, context).once()
            [one] = await Store(client).list()
            folder = await catalog.fetch(
                catalog.merged([], [one])[0], tmp_path / "host", Store(client)
            )
            assert verify(folder).intact
            return one

    assert run(body(), timeout=300).size > 60 * 2**20


def test_owner_alone(context: Context) -> None:
    """Bundles are readable by their owner alone."""
    folder = bundle(context)
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
