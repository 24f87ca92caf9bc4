"""`python -m opsmesh.router.containers.health COMPONENT`: what a container's health check runs. For
one that only serves, the page or the metrics, COMPONENT is the port that has to answer in there.

The one rule: it asks from outside, as a stranger would, and needs no shell; it runs every few
seconds for as long as the mesh does, so it imports little. Exit code 0: healthy; else 1, and why.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from opsmesh.router import paths, ports, probes
from opsmesh.router.client import with_address
from opsmesh.router.errors import BrokerMisconfigured
from opsmesh.router.ports import Ports

#: Who can be asked for; each connects as `opsmesh-NAME`.
COMPONENTS: Final = ("agent", "handlers", "sink")
#: Seconds that the agent gets to say how it is.
PATIENCE: Final = 2.0
#: Connections that the broker's monitor names at once; a mesh has a dozen.
CONNECTIONS: Final = 1024


def trouble(component: str) -> str:
    """What is wrong; empty when nothing is."""
    try:
        if component == "agent" and (way := _way()) != "open":
            return f"the agent's way to the broker: {way}"
        broker = ports.read(Path(paths.state_dir()))
        if not os.environ.get(ports.ADDRESS_VARIABLE) or broker is None:
            return ""  # somebody else's broker, whose monitor is not for us
        if not probes.broker_ready(broker.address, broker.monitor):
            return "the broker is not ready"
        if component not in since(broker):
            return f"{component} is not connected to the broker"
    except BrokerMisconfigured as error:
        return str(error)
    except (OSError, ValueError, KeyError) as error:
        return f"no answer: {error}"
    return ""


def since(broker: Ports) -> dict[str, str]:
    """Since when our broker runs, and each component that is connected to it; OSError or ValueError
    when its monitor does not say."""
    where = broker.address, broker.monitor
    found = {"broker": str(probes.ask(*where, "/varz").get("start", ""))}
    told = probes.ask(*where, f"/connz?limit={CONNECTIONS}").get("connections") or []
    names = {f"opsmesh-{name}": name for name in COMPONENTS}
    for one in told:
        if (name := names.get(one.get("name", ""))) is not None:
            found[name] = str(one.get("start", ""))
    return found


def _way() -> str:
    """Where the agent says that its events go just now: `open` is to the broker."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        with_address(paths.ingest_socket(), client.connect)
        client.sendall(b'{"_status":true}\n')
        with client.makefile("rb") as answer:
            found: dict[str, Any] = json.loads(answer.readline())
    return str(found["agent"]["broker"])


def main(argv: Sequence[str]) -> int:
    """The exit code that Docker takes for well, or not."""
    if len(argv) != 1 or not (argv[0] in COMPONENTS or argv[0].isdecimal()):
        print(f"usage: python -m opsmesh.router.containers.health {'|'.join(COMPONENTS)}|PORT")
        return 2
    if argv[0].isdecimal():
        wrong = "" if probes.answers(int(argv[0]), PATIENCE) else f"nothing answers on {argv[0]}"
    else:
        wrong = trouble(argv[0])
    if wrong:
        print(wrong)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
