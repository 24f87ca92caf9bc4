"""A hub of three machines: which they are, and what stands in each one's server file.

    cluster/cluster.yaml  the nodes, and which of them this machine is (`Cluster`); no secret
    cluster/ca.pem        who a node's certificate must come from
    cluster/node.pem      this node's certificate and key
    cluster/NAME.pem      on the keeper: another node's, for its file

The one rule: three nodes hold one JetStream, and what is acknowledged lies on the disks of two. A
node proves itself by a certificate of the cluster's own authority, which is no host's: whoever has
joined the mesh, or stolen from it, cannot become one (`node_certificates`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from opsmesh.router import files, paths
from opsmesh.router.errors import BadFile
from opsmesh.router.server_config import Block

#: Nodes of a cluster: the smallest number of which one may be lost.
SIZE: Final = 3
#: Where clients, the servers of leaf hosts, and the other nodes connect: NATS's own numbers.
PORT: Final = 4222
LEAF_PORT: Final = 7422
ROUTE_PORT: Final = 6222
#: Replicas of every stream and bucket.
REPLICAS: Final = 3
#: The store of a node: never that of a server that was alone. nats-server (2.15.1, measured)
#: removes every stream that its cluster does not know half a minute after it has joined.
STORE: Final = "jetstream-cluster"
#: What a node knows of the cluster's streams, in the state folder.
KNOWN: Final = "known-cluster.json"
#: Seconds for the TLS handshake of a route, on machines that have just started.
TLS_TIMEOUT: Final = 5

FILE, CA, OWN = "cluster.yaml", "ca.pem", "node.pem"
_HEAD: Final = b"# Written by `opsmesh hub cluster`. Change it with: opsmesh hub cluster init\n"


class Node(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine: `name` is its host's in the mesh, `address` is where the others reach it."""

    name: str
    address: str
    port: int = PORT
    leaf_port: int = LEAF_PORT
    route_port: int = ROUTE_PORT


class Cluster(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. `own` is the node that this machine is; `keeper` the one where the cluster was
    made, which alone lets hosts in. `listen` is what this node's server binds, "" for all."""

    name: str
    own: str
    keeper: str
    nodes: list[Node]
    listen: str = ""

    @property
    def node(self) -> Node:
        """The one that this machine is."""
        return next(node for node in self.nodes if node.name == self.own)

    @property
    def others(self) -> list[Node]:
        """The other two."""
        return [node for node in self.nodes if node.name != self.own]

    @property
    def binds(self) -> str:
        """What this node's server binds."""
        return self.listen or "0.0.0.0"  # noqa: S104 (others come; credentials guard it)

    def of(self, name: str) -> Cluster:
        """The same cluster as another node has it."""
        return msgspec.structs.replace(self, own=name)


def folder() -> Path:
    """`cluster` in the configuration folder."""
    return Path(paths.config_dir(), "cluster")


def read() -> Cluster | None:
    """The cluster that this machine is a node of; None where it is none. BadFile when the file is
    broken."""
    file = folder() / FILE
    try:
        found = msgspec.yaml.decode(file.read_bytes(), type=Cluster)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadFile(str(file), str(error)) from error
    if found.own not in [node.name for node in found.nodes]:
        raise BadFile(str(file), f"own: {found.own!r} is none of its nodes")
    return found


def write(cluster: Cluster, contents: Mapping[str, bytes]) -> None:
    """Become a node: the folder with `cluster.yaml` and these files, in place of what was there."""
    own = _HEAD + msgspec.yaml.encode(cluster)
    files.write_folder(folder(), {**contents, FILE: own})


def remove() -> None:
    """Be a node no more; the store stays."""
    shutil.rmtree(folder(), ignore_errors=True)


def block(cluster: Cluster, *, at: Path | None = None) -> Block:
    """The section `cluster` of this node's server file; its certificates lie in `at`."""
    certificates = at or folder()
    return {
        "name": cluster.name,
        "listen": reach(cluster.binds, cluster.node.route_port),
        # the routes below are all there are: nothing is learned from others
        "no_advertise": True,
        "routes": [f"nats-route://{reach(n.address, n.route_port)}" for n in cluster.others],
        "tls": {
            "cert_file": str(certificates / OWN),
            "key_file": str(certificates / OWN),
            "ca_file": str(certificates / CA),
            "verify": True,
            "min_version": "1.3",
            "timeout": TLS_TIMEOUT,
        },
    }


def urls(cluster: Cluster) -> list[str]:
    """Where clients reach the other nodes, when this one's server is gone."""
    return [f"nats://{reach(node.address, node.port)}" for node in cluster.others]


def reach(address: str, port: int) -> str:
    """`address:port`, also for IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
