"""What every area's tests share: a real nats-server on a free port with a temporary store."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from opsmesh.router import connection, paths, server, topology
from opsmesh.router.errors import BrokerUnavailable
from opsmesh.router.settings import Settings

# A shell starts what it puts into the background with SIGINT ignored, and every child inherits it:
# the tests of Ctrl-C need the ordinary state of affairs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to go on where pytest-xdist does not keep groups together: each process would set up
    every mesh and server of its own."""
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is not None and "@" not in item.nodeid:
            raise pytest.UsageError("pytest-xdist does not know this pytest: make .venv/.dev")


def private_folders(home: Path, env: pytest.MonkeyPatch) -> None:
    """Make a set of XDG directories in `home` and name them in the environment: a mesh of one's
    own."""
    for variable, name in (
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_DATA_HOME", "data"),
        ("XDG_RUNTIME_DIR", "run"),
    ):
        folder = home / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        env.setenv(variable, str(folder))
    env.delenv("OPSMESH_NATS_URL", raising=False)
    # nothing of a test appears on the desktop of whoever runs it
    env.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)


def start_server() -> server.EmbeddedServer:
    """A nats-server that runs, prepared in the state folder."""
    for left in (2, 1, 0):
        running = server.EmbeddedServer(server.prepare(Path(paths.state_dir()), name="test"))
        try:
            running.start()
            break
        except BrokerUnavailable:  # a port that was free was taken by another test's server
            if not left:
                raise
    return running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private set of XDG directories: a mesh of this test's own."""
    private_folders(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def nats_server(home: Path) -> Iterator[server.EmbeddedServer]:
    """A running nats-server of this test's own, prepared in its state folder."""
    running = start_server()
    yield running
    running.stop()


@asynccontextmanager
async def mesh_client(settings: Settings | None = None) -> AsyncIterator[Client]:
    """A connection to this test's server, with the streams of the mesh in place."""
    settings = settings or Settings()
    client = await connection.connect(connection.endpoint(settings), name="test")
    known = topology.Known(Path(paths.state_dir(), "known.json"))
    await topology.ensure(client.jetstream(), settings, known)
    try:
        yield client
    finally:
        await client.close()


async def restart(
    client: Client, broker: server.EmbeddedServer, end: Callable[[], None] | None = None
) -> None:
    """End the broker (kill -9 unless told), start it again, and return once the client is back.

    `is_connected` alone is no proof: it stays true until the client has seen the end.
    """
    before = client.stats["reconnects"]
    await asyncio.to_thread(end or broker.kill)
    await asyncio.to_thread(broker.start)
    await eventually(lambda: client.is_connected and client.stats["reconnects"] > before)


def run(coroutine: Coroutine[Any, Any, Any], *, timeout: float = 60) -> Any:
    """Run a coroutine to its end; a test that hangs fails instead."""
    return asyncio.run(asyncio.wait_for(coroutine, timeout))


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]],
    *,
    timeout: float = 20,  # noqa: ASYNC109
) -> Any:
    """The condition's first true value; AssertionError when it stays false for `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"never true within {timeout} s: {condition}"
        await asyncio.sleep(0.01)
