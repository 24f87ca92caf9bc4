"""The handlers process: it waits for the broker and its streams, and serves until it is ended.

On a leaf there are two of them, each with profiles of its own (`live.scope`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

if __name__ == "__main__":  # before everything that it makes cheaper
    from opsmesh.router import beginning

import structlog
from nats.aio.client import Client

from opsmesh.handlers import figures
from opsmesh.handlers.live.scope import SCOPES, Scope, at_own_broker
from opsmesh.handlers.server import NAMES, Server
from opsmesh.router import (
    connection,
    logs,
    notify,
    redaction,
    starting,
    state_format,
    tasks,
    traces,
)
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import NeedsUpgrade, StateTooNew
from opsmesh.router.metrics import telling
from opsmesh.router.settings import Settings
from opsmesh.router.topology import (
    DECISIONS,
    EVENTS,
    FIRINGS,
    RUNS,
    TRIGGERS,
    VERSIONS,
    WINDOWS,
)
from opsmesh.schemas.exact import Known

#: Seconds between looks for streams that the agent has not made yet.
STREAM_WAIT = 0.25
#: Seconds between looks whether streams of another form have been brought to ours.
FORM_WAIT = 2.0
#: The streams that handlers write to.
NEEDED = (EVENTS, DECISIONS, FIRINGS, VERSIONS, TRIGGERS, f"KV_{RUNS}", f"KV_{WINDOWS}")

log = structlog.get_logger()
_quiet = logs.Throttle()


async def wait_for_streams(client: Client) -> None:
    """Return once the agent has made every stream that handlers need."""
    js = client.jetstream()
    for name in NEEDED:
        while True:
            try:
                found = await js.stream_info(name)
                state_format.check(state_format.of(found.config.metadata), "the broker")
                break
            except (StateTooNew, NeedsUpgrade) as error:  # the agent does not touch it either
                if _quiet.allows("state.refused"):
                    log.critical("state.refused", error=str(error), hint=error.hint)
                await asyncio.sleep(FORM_WAIT)
            except Exception as error:
                log.debug("stream.awaited", stream=name, error=str(error))
                await asyncio.sleep(STREAM_WAIT)


async def serve(settings: Settings, known: Known, scope: Scope, where: Endpoint) -> None:
    """Run until SIGTERM or SIGINT."""
    with traces.sent(NAMES[scope], settings.host, settings.traces):
        async with telling.told(NAMES[scope], figures.HANDLERS):
            await _serve(settings, known, scope, where)


async def _serve(settings: Settings, known: Known, scope: Scope, where: Endpoint) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    # a patient connection waits for ever; the order to end must not
    started: list[Server] = []
    starting = asyncio.create_task(_start(settings, known, scope, where, started))
    if scope == "mesh":  # it does its work also while it waits for the hub
        notify.ready()
    ending = asyncio.create_task(ended.wait())
    beating = asyncio.create_task(notify.beat())
    await asyncio.wait((starting, ending), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        log.info("handlers.ready")
        notify.ready()
        await ending
    await tasks.end([starting, beating])
    for server in started:  # also one that had begun only
        await server.end()


async def _start(
    settings: Settings,
    known: Known,
    scope: Scope,
    where: Endpoint,
    started: list[Server],
) -> None:
    client = await connection.connect(where, name=NAMES[scope].replace(":", "-"))
    await wait_for_streams(client)
    server = Server(client, settings, known=known, scope=scope)
    started.append(server)
    await server.start()


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="opsmesh handlers", description="Decide profiles and run what they say."
    )
    parser.add_argument(
        "--scope",
        choices=SCOPES,
        help="all: every profile, at this host's broker. On a leaf there are two: host (run_on: "
        "origin, at its own broker) and mesh (the rest, at the hub). Default: all, on a leaf host.",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Entry of `opsmesh handlers`."""
    scope: Scope = _arguments(arguments).scope or at_own_broker()
    settings = Settings()
    if starting.refused("handlers", settings):
        return 1
    known = Known()
    rules = redaction.of_logs(settings, known=known)
    logs.configure(NAMES[scope], level=settings.log_level, style=settings.log, redactor=rules)
    if scope == "mesh":
        where = connection.hub_endpoint(settings, role="handler")
        if where is None:
            log.error("hub.unknown", hint="this host has joined no hub: opsmesh join")
            return 1
    else:
        where = connection.endpoint(settings, role="handler")
    tasks.run(serve(settings, known, scope, where))
    return 0


if __name__ == "__main__":
    beginning.over()
    raise SystemExit(main(sys.argv[1:]))
