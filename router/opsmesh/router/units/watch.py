"""`python -m opsmesh.router.units.watch PROBE`: says to systemd what nats-server does not.

It is a child of the server, and ends with it. Ready is a broker whose acknowledgement means on
disk; alive is one that answers at all: how well it is, `opsmesh status` tells.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence

from opsmesh.router import notify, probes
from opsmesh.router.errors import BrokerMisconfigured
from opsmesh.router.supervise import PROBE_EVERY


def main(arguments: Sequence[str]) -> int:
    """Watch until the server is gone."""
    probe, server = json.loads(arguments[0]), os.getppid()
    # the server is this process's parent: WATCHDOG_PID names it, and the signs of life are for it
    os.environ.pop(notify.WATCHDOG_PID, None)
    try:
        while not probes.ready(probe):
            if os.getppid() != server:
                return 0
            time.sleep(PROBE_EVERY)
    except BrokerMisconfigured as error:
        print(f"{error}: {error.hint}", file=sys.stderr, flush=True)
        os.kill(server, signal.SIGTERM)
        return 1
    notify.ready()
    seconds = notify.patience()
    while os.getppid() == server:
        if seconds is None:
            return 0
        if probes.answers(probe["port"], seconds / notify.BEATS):
            notify.alive()
        time.sleep(seconds / notify.BEATS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
