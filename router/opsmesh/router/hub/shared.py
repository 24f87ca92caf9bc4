"""What the nodes of a cluster share of a hub's identity: its keys, and whom they have let in.

Any node takes any client, so each must know the same ones. Here is how it comes onto a machine that
becomes a node, or is put back, by a node's file; afterwards nodes tell each other (`gossip`). The
one rule: everything here is secret, and leaves a machine by these two ways alone.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import msgspec

from opsmesh.router import files, paths
from opsmesh.router.auth import manifest
from opsmesh.router.auth.store import Store
from opsmesh.router.hub import cluster
from opsmesh.router.hub.cluster import Cluster
from opsmesh.router.hub.replica import MANIFEST, NUMBER, Replica
from opsmesh.router.roles import own_names

#: Keys and manifest, in the state folder (`router.auth.store`), and those of the machine from
#: before it became a node: its own broker's streams lie under them.
KEYS, BEFORE = "auth", "auth-before"
_MANIFEST, _NUMBER = f"{KEYS}/{MANIFEST}", f"{KEYS}/{NUMBER}"


def collect(own: Cluster) -> dict[str, bytes]:
    """All of it, on the keeper, by its path in the state folder. The broker must have been prepared
    before."""
    state = Path(paths.state_dir())
    replica = Replica(Store(state / KEYS), host=own.own, keeper=True)
    replica.facts()  # counts
    found = replica.state()
    contents = {f"{KEYS}/{name}": data for name, data in found.files.items()}
    contents[_NUMBER] = msgspec.json.encode(found.number)
    known = state / cluster.KNOWN
    # so that no node makes anew in silence what is to be brought in
    return contents | ({cluster.KNOWN: known.read_bytes()} if known.exists() else {})


def place(contents: dict[str, bytes], *, first: bool, host: str) -> None:
    """Put it on this machine; the `first` time what it had before is kept aside. A first time that
    was broken off is begun again, and what lies aside is what was here before it. Later what is
    `host`'s alone stays, and what is void; should the contents be old, a newer state comes from the
    other nodes."""
    state = Path(paths.state_dir())
    paths.private_dir(str(state))
    if first and (state / KEYS).exists() and not (state / BEFORE).exists():
        (state / KEYS).rename(state / BEFORE)
    if not first and _MANIFEST in contents:
        mine, theirs = Store(state / KEYS).manifest(), manifest.decode(contents[_MANIFEST])
        merged = manifest.merged(mine, theirs, own_names(host))
        contents = {**contents, _MANIFEST: manifest.encode(merged)}
    (state / _NUMBER).unlink(missing_ok=True)
    for name, data in contents.items():
        paths.private_dir(str((state / name).parent))
        files.write_private(state / name, data)


def restore() -> None:
    """The machine is on its own again: with the keys that it had, where it had some."""
    state = Path(paths.state_dir())
    if (state / BEFORE).exists():
        left = state / f".{KEYS}.left"
        shutil.rmtree(left, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (state / KEYS).rename(left)
        (state / BEFORE).rename(state / KEYS)
        shutil.rmtree(left, ignore_errors=True)
