"""The certificates with which the nodes of a cluster know each other.

The one rule: the authority's key is gone when `make` returns. Nobody can make another node's
certificate later, nor can the key be stolen; new nodes get new certificates, all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from opsmesh.router.auth.ca import Authority


def make(name: str, addresses: Mapping[str, str]) -> tuple[bytes, dict[str, bytes]]:
    """The authority's certificate, and the certificate with its key of each node, as PEM;
    `addresses` are those of the nodes, by name."""
    with tempfile.TemporaryDirectory() as folder:  # 0700
        authority = Authority(Path(folder))
        authority.create(f"{name} nodes'")
        own = {
            node: authority.certificate(node, addresses=[address])
            for node, address in addresses.items()
        }
        return authority.bundle.read_bytes(), own
