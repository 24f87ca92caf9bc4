"""A hub's look at its leaves: one that is connected and sends nothing is asked anew.

The server does that by itself, later each time; the one rule here: whoever was silent in two looks
one after the other is asked once, and then has that long again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError

from opsmesh.router import paths, server
from opsmesh.router.errors import RouterError
from opsmesh.router.hub import plan, sourcing

#: Seconds between two looks.
EVERY: Final = 20.0

log = structlog.get_logger()


async def watch(client: Callable[[], Client | None]) -> None:
    """Look until cancelled; returns at once on a machine that is no hub."""
    silent: set[tuple[str, str]] = set()
    while plan.read() is not None:
        await asyncio.sleep(EVERY)
        now = client()
        if now is None or not now.is_connected:
            continue
        try:
            silent = await look(now, silent)
        except (NatsError, RouterError, OSError, TimeoutError) as error:
            log.debug("hub.not_looked", error=str(error))


async def look(client: Client, before: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Who is silent now; those that were `before`, too, are asked anew, and not among them."""
    hub, broker = plan.read(), server.known(Path(paths.state_dir()))
    if hub is None or broker is None or not hub.leaves:
        return set()
    connected = await asyncio.to_thread(server.leaves, broker)
    silent = await sourcing.silent(client, hub, connected)
    stuck = silent & before
    if stuck:
        log.warning("hub.asked_again", hosts=sorted({host for _, host in stuck}))
        await sourcing.again(client.jetstream(), hub, stuck)
    return silent - stuck
