"""What the nodes of a cluster share of a hub's identity: its keys, and whom they have let in.

Any node takes any client, so each must know the same ones. The one rule: everything here is secret,
and leaves a machine in a node's file alone.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Final

from opsmesh.router import files, paths
from opsmesh.router.hub import cluster

#: Keys and manifest, in the state folder (`router.auth.store`), and those of the machine from
#: before it became a node: its own broker's streams lie under them.
KEYS, BEFORE = "auth", "auth-before"
#: Each node's own: credentials of its processes, and a lock.
_OWN: Final = ("own", ".lock")


def collect() -> dict[str, bytes]:
    """All of it, by its path in the state folder. The broker must have been prepared before."""
    state = Path(paths.state_dir())
    found = {
        str(path.relative_to(state)): path.read_bytes()
        for path in sorted((state / KEYS).rglob("*"))
        if path.is_file() and path.relative_to(state / KEYS).parts[0] not in _OWN
    }
    known = state / cluster.KNOWN
    # so that no node makes anew in silence what is to be brought in
    return found | ({cluster.KNOWN: known.read_bytes()} if known.exists() else {})


def place(contents: dict[str, bytes], *, first: bool) -> None:
    """Put it on this machine; the `first` time what it had before is kept aside. A first time that
    was broken off is begun again, and what lies aside is what was here before it."""
    state = Path(paths.state_dir())
    paths.private_dir(str(state))
    if first and (state / KEYS).exists() and not (state / BEFORE).exists():
        (state / KEYS).rename(state / BEFORE)
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
