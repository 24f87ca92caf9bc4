"""`opsmesh hosts`: every host of the mesh, how it stands, and what was heard of it last."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer
from nats.aio.client import Client
from nats.errors import Error as NatsError
from rich.console import Console

from opsmesh.cli import output
from opsmesh.cli.session import with_client
from opsmesh.router import connection, joined, release, server
from opsmesh.router.errors import BrokerUnavailable, RouterError
from opsmesh.router.hub import plan, standing
from opsmesh.router.hub.plan import Plan
from opsmesh.router.hub.standing import Heard, Standing
from opsmesh.router.joined import Joined
from opsmesh.router.settings import Settings
from opsmesh.schemas import times
from opsmesh.schemas.envelope import host_token

#: Seconds between two looks of --watch.
WATCH_EVERY = 2.0

_COLOURS = {"here": "green", "connected": "green", "away": "yellow", "never": "dim"}
_COLUMNS = ("host", "kind", "state", "since", "lag", "last_event", "version")


def hosts(
    json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every 2 s.")] = False,
) -> None:
    """How each host stands: connected or away, how far the hub is behind it, what came last.

    LAG is how many of its events the hub does not have yet; a host that is away knows its own,
    nobody else does (-). Exit code: 0, also when a host is away.

    Examples: opsmesh hosts --watch
              opsmesh hosts --json | jq '.[] | select(.state == "away")'
    """
    if watch and json:
        raise typer.BadParameter("--watch is for people: call hosts --json again instead")
    while True:
        found = with_client(look)
        if json:
            output.as_json([msgspec.to_builtins(one) for one in found])
            return
        if watch:
            Console().clear()
        output.table([_row(one) for one in found], _COLUMNS, empty="no host is known", style=_style)
        for one in found:
            for said in _remarks(one):
                output.note(said)
        if not watch:
            return
        time.sleep(WATCH_EVERY)


async def look(client: Client, settings: Settings) -> list[Standing]:
    """Every host that is known here: the hub first, or this host where it is on its own."""
    hub, member = plan.read(), joined.read()
    if member is not None and member.hub.kind == "leaf":
        return await _from_leaf(client, settings, member)
    own = hub.host if hub else member.hub.hub_host if member else settings.host
    return await _seen(
        client,
        own,
        "hub" if hub or member else "own",
        here=member is None,
        hub=hub,
        mine=settings.host,
    )


async def _seen(
    client: Client, own: str, kind: str, *, here: bool, hub: Plan | None, mine: str
) -> list[Standing]:
    """All hosts, by the broker of the host `own`; who is asked on the host `mine`."""
    heard = await standing.heard(client)
    clients = server.clients() if hub else {host_token(mine)}
    found = [await _own(client, own, kind, here=here)]
    for name, what in sorted(_kinds(hub, await standing.started(client), heard).items()):
        if host_token(name) != host_token(own):
            away = "away" if hub or what == "leaf" else "unknown"
            found.append(await _other(client, name, what, heard, clients, away=away))
    return found


async def _own(client: Client, host: str, kind: str, *, here: bool) -> Standing:
    js, token = client.jetstream(), host_token(host)
    return Standing(
        host=host,
        kind=kind,
        state="here" if here else "connected",
        last_event=await standing.last_event(js, token),
        version=release.version() if here else await standing.version(js, token),
    )


async def _other(
    client: Client,
    host: str,
    kind: str,
    heard: Mapping[str, Heard],
    clients: set[str],
    *,
    away: str,
) -> Standing:
    js, token = client.jetstream(), host_token(host)
    last = await standing.last_event(js, token)
    since, lag, error = last.stored if last else None, None, ""
    state = "never" if last is None else away
    if (one := heard.get(token)) is not None:
        error = one.error
        if one.connected:
            state, since, lag = "connected", None, one.lag
        elif one.silent_s is not None and last is not None:
            since = times.format_us(times.now_us() - round(one.silent_s * 1e6))
    elif token in clients:
        state, since, lag = "connected", None, 0
    return Standing(
        host=host,
        kind=kind,
        state=state,
        since=since if state == "away" else None,
        lag=lag,
        last_event=last,
        version=await standing.version(js, token),
        error=error,
    )


async def _from_leaf(client: Client, settings: Settings, member: Joined) -> list[Standing]:
    """A leaf sees itself, and what its hub sees where that can be asked."""
    js, hub = client.jetstream(), member.hub
    fed = await standing.fed(js, hub.host)
    there = fed is not None and fed.connected
    beyond = await _beyond(settings, member) if there else []
    own = Standing(
        host=hub.host,
        kind="leaf",
        state="here",
        lag=fed.lag if fed else None,
        last_event=await standing.last_event(js, host_token(hub.host)),
        version=release.version(),
    )
    if not beyond:
        since = fed.oldest if fed and not there else None
        state = "connected" if there else "away"
        error = (
            ""
            if there or not await standing.refused(member)
            else "does not let this host in: opsmesh status"
        )
        beyond = [Standing(host=hub.hub_host, kind="hub", state=state, since=since, error=error)]
    return [one for one in beyond if host_token(one.host) != host_token(own.host)] + [own]


async def _beyond(settings: Settings, member: Joined) -> list[Standing]:
    """What the hub sees; nothing when it does not answer, or this host may not ask."""
    where = connection.hub_endpoint(settings, role="viewer")
    if where is None:
        return []
    try:
        client = await connection.connect(where, name="cli", patient=False)
    except BrokerUnavailable:
        return []
    try:
        name = member.hub.hub_host
        return await _seen(client, name, "hub", here=False, hub=None, mine=settings.host)
    except (NatsError, RouterError, TimeoutError):
        return []
    finally:
        await client.close()


def _kinds(hub: Plan | None, started: set[str], heard: Mapping[str, Heard]) -> dict[str, str]:
    """Each host and its kind; beyond the hub names are known as subjects have them."""
    kinds = {token: "leaf" if token in heard else "thin" for token in {*started, *heard}}
    for name, one in (hub.hosts if hub else {}).items():
        kinds.pop(host_token(name), None)
        kinds[name] = one.kind
    return kinds


def _row(one: Standing) -> dict[str, Any]:
    last = one.last_event
    return {
        **msgspec.to_builtins(one),
        "since": output.local(one.since) if one.since else None,
        "lag": "-" if one.lag is None else str(one.lag),
        "last_event": f"{output.local(last.stored)} {last.topic}" if last else None,
    }


def _remarks(one: Standing) -> list[str]:
    said = []
    if one.last_event is not None and one.last_event.ahead_s:
        said.append(f"{one.host}: its clock is ahead by {one.last_event.ahead_s:.1f} s at least")
    if one.error and one.state != "connected":
        said.append(f"{one.host}: {one.error}")
    return said


def _style(column: str, value: Any) -> str:
    return _COLOURS.get(value, "") if column == "state" else ""
