"""What one node of a cluster is given: a file that holds all that the node needs to be one.

It is a secret: with it a machine becomes that node, and has the keys of the hub. The one rule: it
is read whole, and found to be whole, before anything is changed by it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from opsmesh.router.errors import RouterError
from opsmesh.router.hub.cluster import Cluster

#: The version of the form.
FORM: Final = 1
#: Bytes at most.
MAX: Final = 64 * 2**20


class BadNodeFile(RouterError):
    """A file that is no node's, or not a whole one."""

    def __init__(self, reason: str) -> None:
        hint = "on the machine where the cluster was made: opsmesh hub cluster init"
        super().__init__(f"this is no file of a node: {reason}", hint=hint)


class NodeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`files` go into `cluster/`, and `state` into the state folder, by their paths there: what the
    nodes share."""

    opsmesh_node: int = FORM
    cluster: Cluster
    files: dict[str, bytes]
    state: dict[str, bytes] = {}


def encode(node: NodeFile) -> bytes:
    """The file's content."""
    return msgspec.json.format(msgspec.json.encode(node)) + b"\n"


def decode(data: bytes) -> NodeFile:
    """What `encode` was given; BadNodeFile for anything else."""
    if len(data) > MAX:
        raise BadNodeFile(f"it has {len(data)} bytes, the limit is {MAX}")
    try:
        node = msgspec.json.decode(data, type=NodeFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadNodeFile(str(error)) from error
    if node.opsmesh_node != FORM:
        raise BadNodeFile(f"its form is {node.opsmesh_node}, this opsmesh reads {FORM}")
    if node.cluster.own not in [one.name for one in node.cluster.nodes]:
        raise BadNodeFile(f"{node.cluster.own!r} is none of its nodes")
    for name in (*node.files, *node.state):
        if name.startswith("/") or ".." in name.split("/"):
            raise BadNodeFile(f"it would write outside its folder: {name}")
    return node
