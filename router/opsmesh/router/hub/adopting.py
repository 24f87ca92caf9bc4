"""What a hub held before it became a cluster, brought into the cluster.

The server of before runs once more, on loopback, over its store, and each of its streams is read
and put into the cluster with every sequence. The one rule: nothing of the old store is changed, and
a stream that holds something in the cluster is never replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from opsmesh.router import connection, paths, server, snapshot, topology
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import RouterError
from opsmesh.router.hub import cluster
from opsmesh.router.hub.server import STORE
from opsmesh.router.hub.shared import KEYS
from opsmesh.router.server import Broker, EmbeddedServer
from opsmesh.router.settings import Settings

#: The server of before keeps its file here, in the state folder, while it runs.
FOLDER: Final = "before-cluster"


class Occupied(RouterError):
    """The cluster's stream of this name holds something already."""

    def __init__(self, stream: str, messages: int) -> None:
        super().__init__(
            f"stream {stream} of the cluster holds {messages} messages already",
            hint="what was stored before can be brought in only before anything new is stored",
        )


async def adopt(settings: Settings, say: Callable[[str, int], None]) -> int:
    """Bring in all that the store of before holds; how many messages. `say` hears of each stream
    and its messages. Occupied before anything is changed."""
    async with _before(settings) as old, _now(settings) as new:
        # EVENTS last: the agents of all nodes wait for it before they make anything
        wanted = [one.name or "" for one in reversed(topology.streams(settings))]
        held = [name for name in wanted if await _count(old, name)]
        for name in held:
            if there := await _count(new, name):
                raise Occupied(name, there)
        total = 0
        for name in held:
            count = await _move(old, new, name)
            say(name, count)
            total += count
        return total


async def _move(old: Client, new: Client, name: str) -> int:
    with tempfile.TemporaryFile(dir=paths.state_dir()) as file:
        taken = await snapshot.save(old, name, file.write)
        file.seek(0)

        def chunks() -> Iterator[bytes]:
            while chunk := file.read(snapshot.CHUNK):
                yield chunk

        config = {**taken.config, "num_replicas": cluster.REPLICAS}
        with contextlib.suppress(NotFoundError):  # an empty one, made by an agent meanwhile
            await new.jetstream().delete_stream(name)
        await snapshot.load(new, dataclasses.replace(taken, config=config), chunks())
        return taken.messages


async def _count(client: Client, name: str) -> int:
    try:
        state = (await client.jetstream().stream_info(name)).state
    except NotFoundError:
        return 0
    return state.messages


@asynccontextmanager
async def _before(settings: Settings) -> AsyncIterator[Client]:
    broker = _prepared(settings)
    running = EmbeddedServer(broker, binary=server.find_binary(settings.nats.server))
    running.start()
    try:
        where = Endpoint(
            url=broker.url, credentials=broker.credentials("admin"), tls=broker.auth.own_tls
        )
        client = await connection.connect(where, name="before", patient=False)
        yield client
        await client.close()
    finally:
        running.stop()


def _prepared(settings: Settings) -> Broker:
    """The server of before: this machine's keys and its old store, a file and ports of its own."""
    state = Path(paths.state_dir())
    folder = state / FOLDER
    paths.private_dir(str(folder))
    for name in (KEYS, STORE):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(state / name)
    return server.prepare(folder, name=settings.host, max_file_store=settings.nats.max_file_store)


@asynccontextmanager
async def _now(settings: Settings) -> AsyncIterator[Client]:
    where = connection.endpoint(settings, role="admin")
    client = await connection.connect(where, name="adopting", patient=False)
    try:
        yield client
    finally:
        await client.close()
