"""Where our own broker listens: `server.json` in the state folder, which `server` writes; and ports
of this machine that can be had.

Standard library only: a container's health check reads it every few seconds.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Where ports are kept.
KEPT: Final = "server.json"
#: Names the host where clients find the broker. Containers are told it: each has a loopback of its
#: own.
ADDRESS_VARIABLE: Final = "OPSMESH_BROKER_ADDRESS"
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Of clients, and of the monitor, at one address."""

    address: str
    client: int
    monitor: int


def address() -> str:
    """The host of our broker, seen from here."""
    return os.environ.get(ADDRESS_VARIABLE) or LOOPBACK


def read(state: Path) -> Ports | None:
    """Those of the broker that was prepared in `state`; None when there never was one."""
    try:
        kept = json.loads((state / KEPT).read_text())
        return Ports(address=address(), client=int(kept["port"]), monitor=int(kept["monitor_port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def usable(port: int | None) -> int | None:
    """The port of last time, unless another program has taken it since."""
    if port is None:
        return None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return None
    return port


def free(*, besides: int | None = None) -> int:
    """A port that nothing listens on, and not the one promised already: it is free too until the
    server starts, and the kernel gives it again."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port != besides:
            return port
