"""One command's connection to the mesh: to this host's broker, or with `--hub` to the hub's.

Thin hosts and the hub have one broker to ask; on a leaf there are two, and the host's own is meant
unless the command says otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.aio.client import Client

from opsmesh.cli import output
from opsmesh.handlers.live.scope import Scope, at_own_broker
from opsmesh.router import connection, joined, tasks, topology
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import BrokerUnavailable, CredentialsRefused
from opsmesh.router.hub import plan
from opsmesh.router.settings import Settings

T = TypeVar("T")

_asks_hub = False


def ask_hub(wanted: bool) -> None:
    """Whether what follows is asked at the hub."""
    global _asks_hub
    _asks_hub = wanted


def asks_hub() -> bool:
    """Whether this is a leaf whose hub is asked."""
    return _asks_hub and is_leaf()


def hub_endpoint(settings: Settings) -> Endpoint | None:
    """Where the hub is that a leaf asks with `--hub`; None where the host's own broker is meant.
    Ends the command where there is no hub."""
    where = _hub(settings) if _asks_hub else None
    return where if is_leaf() else None


def is_leaf() -> bool:
    """Whether this host has a broker of its own beside its hub's."""
    member = joined.read()
    return member is not None and member.hub.kind == "leaf"


def scope() -> Scope:
    """Which profiles are decided at the broker that is asked."""
    return "mesh" if asks_hub() else at_own_broker()


def with_client(body: Callable[[Client, Settings], Awaitable[T]], *, hub: bool = False) -> T:
    """Connect, run `body`, close. BrokerUnavailable when nobody answers within a few seconds. With
    `hub` the hub is asked, wherever there is one."""

    async def session() -> T:
        settings = Settings()
        where = _hub(settings) if _asks_hub else _hub_of_leaf(settings) if hub else None
        client = await _connect(where, settings)
        try:
            await topology.check_form(client.jetstream())
            return await body(client, settings)
        finally:
            await client.close()

    return tasks.run(session())


async def _connect(hub: Endpoint | None, settings: Settings) -> Client:
    if hub is None:
        return await connection.connect(
            connection.endpoint(settings, role="admin"), name="cli", patient=False
        )
    try:
        return await connection.connect(hub, name="cli", patient=False)
    except CredentialsRefused:
        raise
    except BrokerUnavailable as error:
        error.hint = "the hub is away, or the way to it; what this host knows: without --hub"
        raise


def _hub_of_leaf(settings: Settings) -> Endpoint | None:
    return connection.hub_endpoint(settings, role="admin") if is_leaf() else None


def _hub(settings: Settings) -> Endpoint:
    if plan.read() is not None:  # this is the hub
        return connection.endpoint(settings, role="admin")
    found = connection.hub_endpoint(settings, role="admin")
    if found is None:
        output.fail(
            "this host has joined no hub",
            hint="without --hub its own broker is asked; to join one: opsmesh join",
            code=output.USAGE,
        )
    return found
