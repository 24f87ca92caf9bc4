"""nats-servers for `scale.py`: one, a cluster, leaves; with what each costs the machine.

No credentials: what a JWT costs is a signature at connecting. `sync_interval: always` everywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from figure import FigureError
from opsmesh.router import server
from opsmesh.router.hub import cluster, node_certificates
from opsmesh.router.hub.cluster import Node
from opsmesh.router.server_config import Block, ServerConfig

LOOPBACK: Final = "127.0.0.1"
#: Seconds for a server to serve.
START: Final = 60.0
#: Seconds of processor time in one tick of /proc/PID/stat.
TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """One process; it is started again with its store."""

    folder: Path
    config: ServerConfig
    port: int
    monitor: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"nats://{LOOPBACK}:{self.port}"

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        path = self.folder / "nats.conf"
        path.write_text(self.config.text())
        with (self.folder / "server.log").open("ab") as log:
            argv = [str(server.find_binary()), "-c", str(path)]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)

    def serve(self, path: str = "/healthz") -> float:
        """Return once it is healthy; the seconds that took."""
        began = time.monotonic()
        while self.get(path).get("status") != "ok":
            if time.monotonic() - began > START:
                raise FigureError(f"{self.config.name} does not serve within {START:g} s")
            time.sleep(0.02)
        return time.monotonic() - began

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def get(self, path: str) -> dict[str, Any]:
        """What its monitoring port says; empty when it does not answer."""
        address = f"http://{LOOPBACK}:{self.monitor}{path}"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, ValueError):
            return {}

    @property
    def rss_mb(self) -> float:
        """Resident memory."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    @property
    def cpu_s(self) -> float:
        """Processor time since its start."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK


def make(folder: Path, name: str, **more: Block | str | None) -> Server:
    """A server with free ports; nothing runs yet."""
    folder.mkdir(parents=True, exist_ok=True)
    port, monitor = ports(2)
    config = ServerConfig(
        name=name,
        listen=f"{LOOPBACK}:{port}",
        monitor=f"{LOOPBACK}:{monitor}",
        store=folder / "store",
        max_file_store=64 * 2**30,
        access={},
        **more,  # type: ignore[arg-type]
    )
    return Server(folder, config, port, monitor)


@contextlib.contextmanager
def running(servers: Sequence[Server]) -> Iterator[None]:
    """All of them, healthy, until the body ends."""
    try:
        for one in servers:
            one.begin()
        for one in servers:
            one.serve()
        yield
    finally:
        for one in servers:
            one.kill()


@contextlib.contextmanager
def single(folder: Path, **more: Block | str | None) -> Iterator[Server]:
    """One server."""
    made = make(folder / "hub", "hub", **more)
    with running([made]):
        yield made


@contextlib.contextmanager
def three(folder: Path) -> Iterator[list[Server]]:
    """A cluster of three, with TLS between them."""
    names = ("one", "two", "three")
    routes = ports(3)
    plan = cluster.Cluster(
        name="hub",
        own="",
        keeper="one",
        listen=LOOPBACK,
        nodes=[
            Node(name=name, address=LOOPBACK, route_port=port)
            for name, port in zip(names, routes, strict=True)
        ],
    )
    ca, own = node_certificates.make("hub", dict.fromkeys(names, LOOPBACK))
    made = []
    for name in names:
        at = folder / name
        made.append(make(at, name, cluster=cluster.block(plan.of(name), at=at)))
        (at / cluster.CA).write_bytes(ca)
        (at / cluster.OWN).write_bytes(own[name])
    with running(made):
        yield made


def ports(count: int) -> list[int]:
    """Free ports of loopback."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
