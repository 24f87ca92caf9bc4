"""Is a component ready? Cheap questions that the supervisor asks until the answer is yes.

A probe is plain data (`{"probe": "broker", "port": 8222}`), because it travels to the supervisor.
HTTP is spoken by hand: `urllib` would cost the supervisor as much memory as everything else in it.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from opsmesh.router.client import with_address
from opsmesh.router.errors import BrokerMisconfigured

#: Seconds that one question may take; a component that answers slower is asked again.
PATIENCE = 0.5
#: What is asked of a server: whether all that it holds can be used, or whether it runs.
_SERVES, _RUNS = "/healthz", "/healthz?js-enabled-only=true"


def broker(monitor_url: str, *, node: bool = False) -> dict[str, Any]:
    """JetStream serves, and every acknowledgement means on disk. A `node` of a cluster is ready
    before that: the first of three would wait for the others in vain."""
    port = int(monitor_url.rpartition(":")[2])
    return {"probe": "broker", "port": port, "health": _RUNS if node else _SERVES}


def unix_socket(path: str) -> dict[str, Any]:
    """Somebody accepts connections on this socket."""
    return {"probe": "socket", "path": path}


def ready(probe: Mapping[str, Any]) -> bool:
    """Whether it is ready now; BrokerMisconfigured for a broker that never will be."""
    try:
        if probe["probe"] == "broker":
            return broker_ready("127.0.0.1", probe["port"], health=probe["health"])
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            with_address(probe["path"], client.connect)
        return True
    except (OSError, ValueError):
        return False


def broker_ready(address: str, port: int, *, health: str = _SERVES) -> bool:
    """Whether the broker with that monitor serves; BrokerMisconfigured when it never will well, and
    OSError or ValueError when it does not answer."""
    if ask(address, port, health).get("status") != "ok":
        return False
    config = ask(address, port, "/varz").get("jetstream", {}).get("config", {})
    if not config.get("sync_always"):
        raise BrokerMisconfigured(
            "nats-server acknowledges before data is on disk",
            hint="set sync_interval: always in its jetstream section",
        )
    return True


def answers(port: int, patience: float) -> bool:
    """Whether a server on loopback answers, whatever it says, within so many seconds."""
    try:
        with socket.create_connection(("127.0.0.1", port), patience) as client:
            client.sendall(b"GET /healthz?js-server-only=true HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            return bool(client.recv(1))
    except OSError:
        return False


def ask(address: str, port: int, path: str) -> dict[str, Any]:
    """The JSON that a server's monitor gives; OSError or ValueError when it gives none."""
    with socket.create_connection((address, port), PATIENCE) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n".encode())
        with client.makefile("rb") as answer:
            body = answer.read().partition(b"\r\n\r\n")[2]
    found = json.loads(body)
    return found if isinstance(found, dict) else {}
