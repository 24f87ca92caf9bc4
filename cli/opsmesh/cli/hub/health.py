"""What `status` and `doctor` say of a hub and its hosts, on either side.

A hub that is away is a problem of its leaf, for its events wait; a leaf that is away is a fact at
the hub, and none: a laptop is closed now and then.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from opsmesh.cli import output
from opsmesh.cli.doctor.checks import Check
from opsmesh.cli.hub import hosts, knowing
from opsmesh.router import joined, paths, server
from opsmesh.router.hub import cluster, nodes, plan, standing
from opsmesh.router.settings import Settings

#: Events that may wait for a hub that is connected before that is a problem: it takes thousands in
#: a second.
LAG: Final = 10_000
#: What is to be said of a hub that is away.
FIX: Final = "nothing is lost: they are sent when it is back; what it is: opsmesh hosts, broker.log"
#: What is to be said of a hub that answers, and does not let this host in.
LET_IN: Final = (
    "removed or revoked there. To be let in: opsmesh hub token there, opsmesh join here; to be on "
    "its own: opsmesh leave"
)
_NO_CONSUMER: Final = "the agent makes what feeds it: opsmesh status, the agent's log"


async def look(client: Client, settings: Settings) -> dict[str, Any]:
    """Facts for `status --json`; empty on a machine that is on its own, or thin."""
    if plan.read() is not None:
        found = await hosts.look(client, settings)
        return {"hosts": [msgspec.to_builtins(one) for one in found]}
    member = joined.read()
    if member is None or member.hub.kind != "leaf":
        return {}
    fed = await standing.fed(client.jetstream(), member.hub.host)
    return {
        "hub": member.hub.hub_host,
        "connected": fed is not None and fed.connected,
        "fed": fed is not None,
        "refused": fed is not None and not fed.connected and await standing.refused(member),
        "lag": fed.lag if fed else None,
        "oldest": fed.oldest if fed else None,
    }


def problem(found: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with these facts, and what can be done about it."""
    if "hub" not in found:
        return None
    if not found["fed"]:
        return f"the hub {found['hub']} gets nothing from here", _NO_CONSUMER
    if found["refused"]:
        return f"the hub {found['hub']} does not let this host in: {_waiting(found)}", LET_IN
    if not found["connected"]:
        return f"the hub {found['hub']} is not connected: {_waiting(found)}", FIX
    if found["lag"] > LAG:
        return f"the hub {found['hub']} is behind: {_waiting(found)}", FIX
    return None


async def problems(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same, and what is wrong among the nodes of a cluster."""
    wrong = problem(found)
    return [*([] if wrong is None else [wrong]), *await knowing.problems()]


def line(found: Mapping[str, Any]) -> str:
    """For people, when nothing is wrong; empty on a machine that is on its own."""
    if "hub" in found:
        state = "connected" if found["connected"] else "not connected"
        return f"hub    {found['hub']} {state}, {_waiting(found)}"
    if "hosts" not in found:
        return ""
    away = [one for one in found["hosts"] if one["state"] == "away"]
    said = ", ".join(
        f"{one['host']} since {output.local(one['since'])}" if one["since"] else one["host"]
        for one in away
    )
    count = len(found["hosts"]) - 1
    return f"hosts  {count} beside this hub, {f'away: {said}' if said else 'none away'}"


def without_leader() -> str:
    """What is wrong with the cluster that this machine is a node of; empty when nothing is."""
    own, broker = cluster.read(), server.known(Path(paths.state_dir()))
    if own is None or broker is None:
        return ""
    standing = nodes.look(own, broker.monitor_url)
    away = ", ".join(one.node for one in standing.nodes if one.state == "away")
    if standing.error or standing.leader:
        return ""
    return f"the cluster has no leader ({away or 'none'} away): events wait in the spool"


def check(found: Mapping[str, Any]) -> list[Check]:
    """A line of `doctor`, where there is a hub."""
    if "hub" not in found:
        return []
    wrong = problem(found)
    detail, fix = wrong or (f"{found['hub']} is connected, {_waiting(found)}", "")
    return [Check(check="hub", ok=wrong is None, detail=detail, fix=fix)]


def certificate() -> list[Check]:
    """Whether this host's certificate for its hub is valid for some time yet; nothing without."""
    member = joined.read()
    own = member.file("host.pem") if member is not None else None
    if member is None or own is None:
        return []
    from opsmesh.router.auth import ca  # 0.1 s

    until = ca.expires(own)
    left = (until - datetime.datetime.now(datetime.UTC)).days
    return [
        Check(
            check="certificate",
            ok=left >= ca.SOON,
            detail=f"for {member.hub.hub_host}, until {until:%Y-%m-%d}",
            fix=f"there: opsmesh hub token --host {member.hub.host}; here: opsmesh join",
        )
    ]


def _waiting(found: Mapping[str, Any]) -> str:
    if not found["lag"]:
        return "it has every event"
    since = f" since {output.local(found['oldest'])}" if found["oldest"] else ""
    return f"{found['lag']} events wait here{since}"
