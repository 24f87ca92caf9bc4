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


def broker(monitor_url: str) -> dict[str, Any]:
    """JetStream serves, and every acknowledgement means on disk."""
    return {"probe": "broker", "port": int(monitor_url.rpartition(":")[2])}


def unix_socket(path: str) -> dict[str, Any]:
    """Somebody accepts connections on this socket."""
    return {"probe": "socket", "path": path}


def ready(probe: Mapping[str, Any]) -> bool:
    """Whether it is ready now; BrokerMisconfigured for a broker that never will be."""
    try:
        if probe["probe"] == "broker":
            return _broker_ready(probe["port"])
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            with_address(probe["path"], client.connect)
        return True
    except (OSError, ValueError):
        return False


def _broker_ready(port: int) -> bool:
    if _get(port, "/healthz").get("status") != "ok":
        return False
    config = _get(port, "/varz").get("jetstream", {}).get("config", {})
    if not config.get("sync_always"):
        raise BrokerMisconfigured(
            "nats-server acknowledges before data is on disk",
            hint="set sync_interval: always in its jetstream section",
        )
    return True


def _get(port: int, path: str) -> dict[str, Any]:
    """The JSON that a server on loopback gives; OSError or ValueError when it gives none."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
        with client.makefile("rb") as answer:
            body = answer.read().partition(b"\r\n\r\n")[2]
    found = json.loads(body)
    return found if isinstance(found, dict) else {}
