"""The broker that a backup, a restore or an upgrade works with: the one that runs, or ours for a
while.

The one rule: never two brokers on one store. Ours is started only when none answers, and while the
supervisor's lock is held.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from nats.aio.client import Client

from opsmesh.handlers.errors import HandlersError
from opsmesh.router import (
    component,
    connection,
    files,
    joined,
    paths,
    running,
    server,
    supervisor_state,
)
from opsmesh.router.component import Component
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.server import Broker
from opsmesh.router.settings import Settings


class MeshRuns(HandlersError):
    """What is asked for needs a mesh that is down."""

    hint = "stop it first: opsmesh down (or systemctl --user stop opsmesh.target)"


def guest(settings: Settings) -> bool:
    """Whether this host has no broker, and works at a hub's."""
    member = None if settings.nats.url else joined.read()
    return member is not None and member.hub.kind == "thin"


@contextlib.asynccontextmanager
async def reached(settings: Settings) -> AsyncIterator[Client | None]:
    """A connection to the broker that runs, or to this machine's own, which runs meanwhile; None
    where the broker is a hub's: its streams are the hub's matter."""
    if guest(settings):
        yield None
        return
    client = await _running(settings)
    if client is not None:
        async with _closing(client):
            yield client
        return
    if settings.nats.url:
        raise BrokerUnavailable(settings.nats.url, "no answer")
    with _alone(), _serving(server.prepare_own(settings), settings):
        async with _closing(await _connected(settings)) as ours:
            yield ours


@contextlib.asynccontextmanager
async def quick(settings: Settings) -> AsyncIterator[Client]:
    """A connection to this machine's own broker, started for us alone; with `nats.url` to that one.
    Not for a `guest`.

    Ours does not sync what it writes: nothing is acknowledged to anybody, and whoever restores
    syncs all of it at the end. With `sync_interval: always` the broker takes back 1 MB a second,
    without it a hundred (measured, 2.15.1).
    """
    if settings.nats.url:
        async with _closing(await _connected(settings)) as client:
            yield client
        return
    relaxed = _relaxed(server.prepare_own(settings))
    try:
        with _serving(relaxed, settings):
            where = connection.endpoint(settings, role="admin")
            where = dataclasses.replace(where, url=relaxed.url)
            client = await connection.connect(where, name="care", patient=False)
            async with _closing(client):
                yield client
    finally:
        relaxed.config.unlink(missing_ok=True)


@contextlib.contextmanager
def _serving(broker: Broker, settings: Settings) -> Iterator[None]:
    """The broker runs while the body does, and ends with this process, however that ends."""
    argv = broker.argv(server.find_binary(settings.nats.server))
    process = component.spawn(Component(name="care-broker", kind="broker", argv=argv))
    try:
        server.wait_ready(broker, process)
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextlib.asynccontextmanager
async def down(settings: Settings) -> AsyncIterator[None]:
    """The mesh of this machine stays down while the body runs; MeshRuns when it is not."""
    if running.mesh() is not None:  # as units of systemd too
        raise MeshRuns("the mesh runs here")
    if not settings.nats.url and not guest(settings):
        client = await _running(settings)
        if client is not None:
            await client.close()
            raise MeshRuns("this machine's broker runs")
    with _alone():
        yield


async def _running(settings: Settings) -> Client | None:
    if not settings.nats.url:
        own = server.known(Path(paths.state_dir()))
        if own is None or not _listens(own):  # the client would try for seconds
            return None
    try:
        return await _connected(settings)
    except BrokerUnavailable:
        return None


def _listens(broker: Broker) -> bool:
    url = urlsplit(broker.url)
    try:
        with socket.create_connection((url.hostname or "", url.port or 0), timeout=1):
            return True
    except OSError:
        return False


async def _connected(settings: Settings) -> Client:
    where = connection.endpoint(settings, role="admin")
    return await connection.connect(where, name="care", patient=False)


@contextlib.asynccontextmanager
async def _closing(client: Client) -> AsyncIterator[Client]:
    try:
        yield client
    finally:
        await client.close()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    lock = supervisor_state.lock()
    try:
        yield
    finally:
        os.close(lock)


def _relaxed(broker: Broker) -> Broker:
    """The broker without its syncs, without other servers, and where nobody looks for it: hosts
    with a full spool wait for its port."""
    text = broker.config.read_text()
    found = msgspec.json.decode(text[text.index("{") :])
    found["jetstream"]["sync_interval"] = "10m"
    for other in ("leafnodes", "cluster"):
        found.pop(other, None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found["listen"] = f"127.0.0.1:{probe.getsockname()[1]}"
    path = broker.config.with_name("restore.conf")
    files.write_private(path, json.dumps(found).encode())
    return dataclasses.replace(broker, config=path, url=f"nats://{found['listen']}")
