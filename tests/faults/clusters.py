"""Three brokers of one cluster, as processes on loopback ports, each of which can be killed.

One machine stands in for three: what a kill takes away is a process with its connections, never a
disk or a link.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from opsmesh.router import files, server
from opsmesh.router.hub import cluster, node_certificates
from opsmesh.router.hub.cluster import Node
from opsmesh.router.server_config import ServerConfig
from tests.conftest import free_ports
from tests.router.agent_process import until

#: Whose password is the test's alone.
USER, PASSWORD = "opsmesh", "a-password-of-this-test"
LOOPBACK: Final = "127.0.0.1"
NODES: Final = ("one", "two", "three")
#: Seconds for a cluster to come together, and for a leader to be found.
PATIENCE: Final = 60.0


@dataclass
class Broker:
    """One node: its files, its ports, its process."""

    name: str
    folder: Path
    port: int
    monitor: int
    route: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"nats://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Run it; whether it serves is the cluster's question."""
        with (self.folder / "broker.log").open("ab") as log:
            argv = [str(server.find_binary()), "-c", str(self.folder / "nats.conf")]
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
            self.process = None

    def get(self, path: str) -> dict[str, Any]:
        """What its monitoring port says; empty when it does not answer."""
        try:
            address = f"http://{LOOPBACK}:{self.monitor}{path}"
            with urllib.request.urlopen(address, timeout=1) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:  # it says what is not well
            return {"status": error.code, "told": error.read().decode(errors="replace")}
        except (OSError, ValueError):
            return {}


class Cluster:
    """The nodes `one`, `two` and `three`."""

    def __init__(self, folder: Path) -> None:
        ports = iter(free_ports(3 * len(NODES)))
        self.nodes = [Broker(n, folder / n, next(ports), next(ports), next(ports)) for n in NODES]
        self.plan = plan = cluster.Cluster(
            name="hub",
            own="",
            keeper="one",
            listen=LOOPBACK,
            nodes=[Node(name=n.name, address=LOOPBACK, route_port=n.route) for n in self.nodes],
        )
        ca, own = node_certificates.make("hub", dict.fromkeys(NODES, LOOPBACK))
        for node in self.nodes:
            node.folder.mkdir(parents=True)
            # synced, as opsmesh writes them: a power cut is to find what a user's machine has
            files.write_private(node.folder / cluster.CA, ca)
            files.write_private(node.folder / cluster.OWN, own[node.name])
            config = ServerConfig(
                name=node.name,
                listen=f"{LOOPBACK}:{node.port}",
                monitor=f"{LOOPBACK}:{node.monitor}",
                store=node.folder / "jetstream",
                max_file_store=20 * 2**30,
                access={"authorization": {"users": [{"user": USER, "password": PASSWORD}]}},
                cluster=cluster.block(plan.of(node.name), at=node.folder),
            )
            files.write_private(node.folder / "nats.conf", config.text().encode())

    @property
    def urls(self) -> str:
        """All addresses, as `nats.url` takes them."""
        return ",".join(node.url for node in self.nodes)

    def start(self) -> None:
        """Run all, and return once they have a leader."""
        for node in self.nodes:
            node.start()
        self.together()

    def together(self) -> None:
        """Return once every node runs, and says that all it holds is current."""

        told: dict[str, dict[str, Any]] = {}

        def well() -> bool:
            told.update((node.name, node.get("/healthz")) for node in self.nodes)
            return all(one.get("status") == "ok" for one in told.values())

        try:
            until(well, timeout=PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"not together within {PATIENCE} s: {told}") from error

    def leader(self, stream: str) -> Broker:
        """The node that leads a stream."""
        found: list[Broker] = []

        def led() -> bool:
            found[:] = [n for n in self.nodes if n.process and _leader(n, stream) == n.name]
            return len(found) == 1

        until(led, timeout=PATIENCE)
        return found[0]

    def end(self) -> None:
        """Kill all."""
        for node in self.nodes:
            node.kill()


def _leader(node: Broker, stream: str) -> str:
    told = node.get("/jsz?accounts=true&streams=true")
    for account in told.get("account_details", []):
        for one in account.get("stream_detail", []):
            if one["name"] == stream:
                return str(one.get("cluster", {}).get("leader", ""))
    return ""


@contextlib.contextmanager
def cluster_of_three(folder: Path) -> Iterator[Cluster]:
    """A cluster that serves, until the body ends."""
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.end()
