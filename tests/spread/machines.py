"""Whole meshes on hosts that are network namespaces: what a person types, and what is stored there.

Each has XDG folders of its own and runs what `opsmesh up` starts. A file system is shared by all,
so events are emitted through a host's ingest socket from anywhere, and archives are read so.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.router.agent_process import until
from tests.spread.namespaces import Host, Network, network

#: Prints a document: what the host's own broker answers to a request of JetStream's API.
_ASK = """
import asyncio, sys
from opsmesh.router import connection
from opsmesh.router.settings import Settings
async def main():
    where = connection.endpoint(Settings(), role="admin")
    client = await connection.connect(where, name="asker", patient=False)
    answer = await client.request("$JS.API." + sys.argv[1], sys.argv[2].encode(), timeout=5)
    sys.stdout.buffer.write(answer.data)
    await client.close()
asyncio.run(main())
"""

#: Connects to this host's own broker with the credentials of a file; exit code 3 when refused.
_CONNECT = """
import asyncio, sys
from pathlib import Path
from opsmesh.router import connection, paths, server
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import CredentialsRefused
async def main():
    broker = server.known(Path(paths.state_dir()))
    where = Endpoint(url=broker.url, credentials=Path(sys.argv[1]), tls=broker.auth.own_tls)
    try:
        client = await connection.connect(where, name="stranger", patient=False)
    except CredentialsRefused:
        sys.exit(3)
    await client.close()
asyncio.run(main())
"""

#: Prints a line for each event of the stream: sequence, id, subject, and its envelope.
_EVENTS = """
import asyncio, sys
from opsmesh.cli.events import stored
from opsmesh.router import connection
from opsmesh.router.pull import delivery
from opsmesh.router.scan import scan
from opsmesh.router.settings import Settings
async def main():
    where = connection.endpoint(Settings(), role="admin")
    client = await connection.connect(where, name="reader", patient=False)
    async for msg in scan(client, "EVENTS", subjects=[sys.argv[1]]):
        sys.stdout.buffer.write(msg.subject.encode() + b" " + msg.data + b"\\n")
    await client.close()
asyncio.run(main())
"""

#: Emits `end - first` events of a topic, one at a time, as a producer of ours does.
_LOAD = """
import sys
from opsmesh.producers.host import Host
host = Host("load")
for n in range(int(sys.argv[1]), int(sys.argv[2])):
    host.emit("load.test", {"n": n})
"""


class Machine:
    """One host and its mesh."""

    def __init__(self, host: Host, folder: Path, settings: dict[str, str]) -> None:
        self.name, self.address, self.folder = host.name, host.address, folder
        self._host = host
        for name in ("config", "state", "data", "run"):
            (folder / name).mkdir(mode=0o700, parents=True)
        drop = ("OPSMESH_", "DBUS_SESSION")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
        self.env |= {
            "XDG_CONFIG_HOME": f"{folder}/config",
            "XDG_STATE_HOME": f"{folder}/state",
            "XDG_DATA_HOME": f"{folder}/data",
            "XDG_RUNTIME_DIR": f"{folder}/run",
            "OPSMESH_HOST": host.name,
            "OPSMESH_PRODUCERS__ENABLED": "[]",
            **settings,
        }

    def opsmesh(self, *argv: str, given: str = "", codes: Sequence[int] = (0,)) -> str:
        """What the command prints; its exit code must be one of `codes`."""
        done = self._run(sys.executable, "-m", "opsmesh.cli.entry", *argv, given=given)
        assert done.returncode in codes, f"{self.name}: {argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *argv: str, codes: Sequence[int] = (0,)) -> Any:
        """The same, read as JSON."""
        return json.loads(self.opsmesh(*argv, "--json", codes=codes))

    def ask(self, subject: str, **body: Any) -> dict[str, Any]:
        """An answer of the JetStream API of the broker that this host uses."""
        done = self._run(sys.executable, "-c", _ASK, subject, json.dumps(body) if body else "")
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def lets_in(self, credentials: Path) -> bool:
        """Whether the broker of this host, and no other, takes these credentials."""
        done = self._run(sys.executable, "-c", _CONNECT, str(credentials))
        assert done.returncode in (0, 3), done.stderr
        return done.returncode == 0

    def events(self, subject: str = "evt.>") -> list[tuple[str, dict[str, Any]]]:
        """What EVENTS holds, in its order: subject and envelope."""
        done = self._run(sys.executable, "-c", _EVENTS, subject)
        assert done.returncode == 0, done.stderr
        parted = [line.partition(" ") for line in done.stdout.splitlines()]
        return [(subject, json.loads(data)) for subject, _, data in parted]

    def count(self, subject: str = "evt.>") -> int:
        """How many of these EVENTS holds; -1 while it cannot be asked."""
        try:
            state = self.ask("STREAM.INFO.EVENTS", subjects_filter=subject)["state"]
        except (AssertionError, KeyError):
            return -1
        return sum((state.get("subjects") or {}).values())

    def emit(self, first: int, end: int) -> subprocess.Popen[bytes]:
        """Emits `load.test` with these numbers, in the background."""
        argv = [sys.executable, "-c", _LOAD, str(first), str(end)]
        return subprocess.Popen(argv, env=self.env)

    def profiles(self, text: str) -> None:
        """What the handlers run."""
        folder = self.folder / "config" / "opsmesh"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "profiles.yaml").write_text(text)

    def up(self) -> None:
        """`opsmesh up`, in the background."""
        self.opsmesh("up", "--detach")

    def kill(self, component: str) -> None:
        """kill -9 of a component; the supervisor starts it again."""
        state = json.loads((self.folder / "run/opsmesh/supervisor.json").read_text())
        pid = next(c["pid"] for c in state["components"] if c["name"] == component)
        os.kill(pid, signal.SIGKILL)

    def crash(self) -> None:
        """kill -9 of everything that runs here."""
        state = json.loads((self.folder / "run/opsmesh/supervisor.json").read_text())
        for pid in (state["pid"], *(one["pid"] for one in state["components"])):
            os.kill(pid, signal.SIGKILL)

    def log(self, component: str) -> str:
        """What it logged."""
        return (self.folder / f"state/opsmesh/logs/{component}.log").read_text(errors="replace")

    def end(self) -> None:
        """Nothing of it runs on."""
        with contextlib.suppress(AssertionError):
            self.opsmesh("down")

    def _run(self, *argv: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._host.argv(*argv),
            env=self.env,
            input=given,
            capture_output=True,
            text=True,
            timeout=180,
        )


class Machines(dict[str, Machine]):
    """Machines by name, and the network between them."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net


@contextlib.contextmanager
def machines(folder: Path, *names: str, **settings: str) -> Iterator[Machines]:
    """Hosts on which nothing runs yet; everything has ended after the body. `settings` are
    environment variables of all of them."""
    with network(names) as net:
        made = Machines(net)
        for name in names:
            made[name] = Machine(net.hosts[name], folder / name, settings)
        try:
            yield made
        finally:
            for one in made.values():
                one.end()


def joined(hub: Machine, *others: Machine, kind: str = "leaf") -> None:
    """The hub and its hosts run, joined by what a person would type."""
    hub.opsmesh("hub", "init", "--address", hub.address)
    hub.up()
    for one in others:
        made = hub.opsmesh("hub", "token", "--host", one.name, "--kind", kind)
        one.opsmesh("join", "-", given=made)
        one.up()


def arrived(hub: Machine, subject: str, count: int, *, timeout: float = 120) -> None:
    """Return once the hub's EVENTS holds so many of these."""
    until(lambda: hub.count(subject) >= count, timeout=timeout)
