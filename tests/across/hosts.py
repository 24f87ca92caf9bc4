"""Hosts of a mesh on one machine: a set of folders and a name each, processes of their own, and one
broker for all of them. What a real network would add is tested with namespaces (`tests/spread`)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import yaml
from nats.aio.client import Client

from opsmesh.handlers.live import census, liveness
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.router import connection, server, topology
from opsmesh.router.hub import trust
from opsmesh.router.joined import Kind
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.schemas import ids, times
from opsmesh.schemas.envelope import Event, encode, subject
from tests.conftest import PATIENCE, eventually


class Host:
    """One of them, with its processes."""

    kind: Kind = "thin"

    def __init__(self, home: Path, name: str, broker: EmbeddedServer, **settings: Any) -> None:
        self.name = name
        self.home = home / name
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.config = self.home / "config" / "opsmesh"
        self.config.mkdir(parents=True)
        self.settings(settings)
        self._joined(broker)

    def _joined(self, hub: EmbeddedServer) -> None:
        """What `opsmesh join` writes, but TLS: this hub has none."""
        known, folder = hub.broker, self.config / "joined"
        member = {"kind": self.kind, "host": self.name, "urls": [known.url], "hub_host": "hub"}
        folder.mkdir(mode=0o700)
        (folder / "hub.json").write_text(json.dumps(member))
        for role in trust.ROLES_OF[self.kind]:
            name = f"{self.name}-{role}"
            text = known.auth.issue(name, role=role, host=self.name)
            (folder / f"{role}.creds").write_text(text)

    def settings(self, values: dict[str, Any]) -> None:
        """Write its config.yaml."""
        (self.config / "config.yaml").write_text(yaml.safe_dump({"host": self.name, **values}))

    def profiles(self, text: str) -> None:
        """Write its profiles.yaml."""
        new = self.config / "profiles.new"
        new.write_text(text)
        new.rename(self.config / "profiles.yaml")

    @property
    def environment(self) -> dict[str, str]:
        """That of its processes."""
        folders = {
            "XDG_CONFIG_HOME": "config",
            "XDG_STATE_HOME": "state",
            "XDG_DATA_HOME": "data",
            "XDG_RUNTIME_DIR": "run",
        }
        for name in folders.values():
            (self.home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("OPSMESH_")}
        kept.pop("DBUS_SESSION_BUS_ADDRESS", None)
        return {**kept, **{key: str(self.home / name) for key, name in folders.items()}}

    def start(self, module: str = "opsmesh.handlers.serve", *arguments: str) -> None:
        """Start a component."""
        log = self.home / f"{module}{''.join(arguments)}.log"
        with log.open("ab") as out:
            self._running[module + "".join(arguments)] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=out,
                stderr=out,
                env=self.environment,
            )

    def stop(self, module: str = "opsmesh.handlers.serve", *arguments: str) -> None:
        """SIGTERM."""
        process = self._running.pop(module + "".join(arguments))
        process.terminate()
        process.wait(60)

    def kill(self, module: str = "opsmesh.handlers.serve", *arguments: str) -> None:
        """kill -9."""
        process = self._running.pop(module + "".join(arguments))
        process.kill()
        process.wait()

    def end(self) -> None:
        """End all its processes."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(
            [sys.executable, "-m", "opsmesh.cli.entry", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def cli_json(self, *arguments: str) -> Any:
        """Its JSON."""
        done = self.cli(*arguments, "--json")
        assert done.stdout, (done.returncode, done.stderr)
        return json.loads(done.stdout)

    def log(self) -> str:
        """What its processes have said."""
        return "\n".join(path.read_text() for path in sorted(self.home.glob("*.log")))


@contextlib.contextmanager
def hosts(home: Path, broker: EmbeddedServer, *names: str, **settings: Any) -> Iterator[list[Host]]:
    """Hosts of these names; their processes end with the body."""
    found = [Host(home, name, broker, **settings) for name in names]
    try:
        yield found
    finally:
        for host in found:
            host.end()


class Leaf(Host):
    """A host with a broker of its own, which has joined `hub`. A stand-in: the two brokers are not
    connected, so that nothing is sourced; a test stores at each what it should have."""

    kind = "leaf"

    def __init__(self, home: Path, name: str, hub: EmbeddedServer) -> None:
        state = home / name / "state" / "opsmesh"
        state.mkdir(mode=0o700, parents=True)
        self.own = EmbeddedServer(server.prepare(state, name=name))
        self.own.start()
        super().__init__(home, name, hub)

    def end(self) -> None:
        """End its broker as well."""
        super().end()
        self.own.stop()


@contextlib.contextmanager
def leaf(home: Path, name: str, hub: EmbeddedServer) -> Iterator[Leaf]:
    """One that ends with the body."""
    found = Leaf(home, name, hub)
    try:
        yield found
    finally:
        found.end()


async def with_streams(broker: EmbeddedServer, folder: Path) -> None:
    """Make what an agent would."""
    async with at(broker) as client:
        known = topology.Known(folder / "known.json")
        await topology.ensure(client.jetstream(), Settings(), known)


@contextlib.asynccontextmanager
async def at(broker: EmbeddedServer) -> AsyncIterator[Client]:
    """A connection to this broker."""
    known = broker.broker
    where = connection.Endpoint(url=known.url, credentials=known.credentials("admin"))
    client = await connection.connect(where, name="test")
    try:
        yield client
    finally:
        await client.close()


async def in_force(client: Client, profile: str, *names: str) -> None:
    """Return once these hosts, and no others, have the profile in force."""

    async def there() -> bool:
        found = await census.ask(client, profile)
        return sorted(one.host for one in found) == sorted(names)

    await eventually(there)


async def owned_by(client: Client, consumer: str) -> str:
    """The host of the owner, once there is one."""

    async def there() -> str:
        found = await liveness.owner(client, consumer)
        return found.host if isinstance(found, liveness.Alive) else ""

    host: str = await eventually(there)
    return host


async def publish(client: Client, host: str, topic: str = "my.thing", **payload: Any) -> Event:
    """Store an event of this host."""
    event_id = ids.uuid7()
    event = Event(
        topic=topic,
        ts_utc=times.format_us(times.now_us()),
        source="test",
        component="test",
        severity="info",
        correlation_id=event_id,
        host=host,
        session_id="",
        workspace="",
        payload=payload,
        id=event_id,
    )
    await client.jetstream().publish(
        subject(host, topic), encode(event), headers={"Nats-Msg-Id": event.id}
    )
    return event


async def finished(client: Client, count: int, *, timeout: float = PATIENCE) -> list[Run]:  # noqa: ASYNC109
    """The runs of the ledger, once so many have ended."""

    async def there() -> list[Run]:
        found = [run async for run in Ledger(client).runs() if run.finished]
        return found if len(found) >= count else []

    runs: list[Run] = await eventually(there, timeout=timeout)
    return runs
