"""A broker whose disk was full: it is told of, and started again once there is room.

nats-server (2.15.1, measured) shuts a stream whose write has failed: publishes to it time out from
then on, also when there is room again, until the server is started anew. Nothing is lost meanwhile,
the spool takes all; but nobody would ever send it. Only for the embedded broker: another server is
its owner's to start.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from opsmesh.router import component, logs, paths, running, server
from opsmesh.router.hub.server import spread

#: Seconds between looks, and how many in a row must have found events that the broker does not take
#: before it is asked.
LOOK, PATIENCE = 5.0, 2
#: Bytes that must be free before a start is worth it.
ROOM: Final = 16 * 2**20

log = structlog.get_logger()


async def watch(waits: Callable[[], bool]) -> None:
    """Look for ever. `waits`: there are events that a broker which can be reached does not take."""
    throttle = logs.Throttle()
    found = 0
    while True:
        await asyncio.sleep(LOOK)
        found = found + 1 if waits() else 0
        if found < PATIENCE:
            continue
        broker = server.known(Path(paths.state_dir()))
        error = await asyncio.to_thread(server.write_error, broker) if broker is not None else ""
        if not error:
            continue
        free = shutil.disk_usage(Path(paths.state_dir(), spread().store)).free
        if free < ROOM:
            if throttle.allows("full"):
                hint = f"make room: {ROOM - free} bytes more"
                log.critical("broker.cannot_write", error=error, free=free, hint=hint)
        elif _start_again():
            log.warning("broker.started_again", error=error, free=free)
            found = -PATIENCE  # it needs a moment
        elif throttle.allows("room"):
            hint = "there is room: start the broker again"
            log.critical("broker.cannot_write", error=error, free=free, hint=hint)


def _start_again() -> bool:
    """End the broker: its supervisor starts what ends. False when none does that."""
    state = running.mesh()
    for status in state.components if state is not None else ():
        if status.name == "broker" and status.pid and component.birth(status.pid) == status.birth:
            os.kill(status.pid, signal.SIGTERM)
            return True
    return False
