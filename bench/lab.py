"""The lab: folders, brokers, connections and processes that exist for one figure alone.

Everything lies in one temporary folder that is removed in the end, and every process that is
started here is ended here, however the measurement ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client

from figure import FigureError
from opsmesh.router import connection, paths, server, topology
from opsmesh.router.settings import Settings

#: The host's name in every event, so that none holds the machine's own.
HOST: Final = "bench"
#: Seconds that a process gets to end by itself: a supervisor ends its components one by one.
PATIENCE: Final = 30.0
#: Seconds between looks at something outside of this process: each costs those who are measured.
LOOK: Final = 0.01

#: Variables that would make the mesh another one than a user gets by default.
_FOREIGN: Final = ("OPSMESH_", "XDG_", "NATS_")


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where a figure is measured, and how long."""

    folder: Path
    rounds: int
    scale: float

    def amount(self, full: int, *, least: int = 8) -> int:
        """How many to take of what a full run takes `full` of."""
        return max(least, round(full * self.scale))


@contextlib.contextmanager
def folders(parent: Path) -> Iterator[Path]:
    """A private set of XDG folders, in force while the body runs."""
    with tempfile.TemporaryDirectory(prefix="opsmesh-bench-", dir=parent) as name:
        home = Path(name)
        before = dict(os.environ)
        for variable in before:
            if variable.startswith(_FOREIGN):
                del os.environ[variable]
        os.environ["OPSMESH_HOST"] = HOST
        # Bytecode is cached, as it is for a user; a test run's own setting must not reach us.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        use(home)
        try:
            yield home
        finally:
            os.environ.clear()
            os.environ.update(before)


def use(home: Path) -> None:
    """Let this process, and what it starts, keep everything in `home`."""
    os.environ.update(environment(home))


def environment(home: Path) -> dict[str, str]:
    """The XDG variables of a mesh that lives in `home`; its folders exist."""
    variables = {
        "XDG_CONFIG_HOME": home / "config",
        "XDG_STATE_HOME": home / "state",
        "XDG_DATA_HOME": home / "data",
        "XDG_RUNTIME_DIR": home / "run",
    }
    for folder in variables.values():
        folder.mkdir(mode=0o700, exist_ok=True)
    return {name: str(folder) for name, folder in variables.items()}


@contextlib.contextmanager
def broker() -> Iterator[server.Broker]:
    """An embedded server, `sync_interval: always` as every one of ours."""
    running = server.EmbeddedServer(server.prepare(Path(paths.state_dir()), name=HOST))
    try:
        yield running.start()
    finally:
        running.stop()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    """A connection to the broker, its streams in place."""
    settings = Settings()
    client = await connection.connect(connection.endpoint(settings, role="admin"), name=HOST)
    try:
        known = topology.Known(Path(paths.state_dir(), "known.json"))
        await topology.ensure(client.jetstream(), settings, known)
        yield client
    finally:
        await client.close()


@contextlib.contextmanager
def process(command: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`opsmesh COMMAND` with these variables, until the body ends."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(
            [sys.executable, "-m", "opsmesh.cli.entry", command],
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield running
        except BaseException as error:
            if (code := running.poll()) not in (None, 0) and isinstance(error, Exception):
                log.seek(0)
                said = log.read().decode(errors="replace").strip().splitlines() or ["nothing"]
                raise FigureError(
                    f"`opsmesh {command}` ended with code {code}, and said last: {said[-1]}"
                ) from error
            raise
        finally:
            end(running)


@contextlib.asynccontextmanager
async def agent() -> AsyncIterator[None]:
    """A broker with its streams, and an agent that listens, until the body ends."""
    with broker():
        async with connected():
            pass  # the streams are there
        with process("agent") as running:

            def listening() -> bool:
                check_runs(running)
                return Path(paths.ingest_socket()).exists()

            await until(listening, "the agent's socket")
            yield


def end(running: subprocess.Popen[bytes]) -> None:
    """End a process that was started here: kindly, and if need be with force."""
    running.terminate()
    try:
        running.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()


def check_runs(running: subprocess.Popen[bytes]) -> None:
    """FigureError when the process has ended."""
    if running.poll() is not None:
        raise FigureError("the process has ended")


async def until(
    condition: Callable[[], Awaitable[Any] | Any], what: str, *, limit: float = 60.0
) -> Any:
    """The first true value of the condition; FigureError when none comes within `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise FigureError(f"{what}: not within {limit:g} s")
        await asyncio.sleep(LOOK)
