"""How the nodes of a cluster stand, as this machine's own server sees it.

Its monitoring port is asked, which answers also when no leader does: a cluster that has lost two
nodes says nothing through NATS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from opsmesh.router import server
from opsmesh.router.hub.cluster import Cluster
from opsmesh.router.hub.replica import Facts, behind

#: Seconds that one question may take.
PATIENCE: Final = 2.0

State = Literal["here", "connected", "away", "unknown"]


#: Whether a node has all that another one has of what they share; its agent says so.
Knows = Literal["latest", "behind", "unknown"]


class Stands(msgspec.Struct, frozen=True, kw_only=True):
    """One node: `leads` is how many streams and buckets it leads."""

    node: str
    address: str
    state: State
    leads: int = 0
    knows: Knows = "unknown"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """All of them. `leader` places streams and consumers; "" while there is none, as then nothing
    can be made. `leaderless` are streams that take nothing just now."""

    nodes: list[Stands]
    leader: str = ""
    leaderless: list[str] = []
    #: Why this machine's server could not be asked.
    error: str = ""

    @property
    def well(self) -> bool:
        """Every node is there, none is behind, and everything has a leader."""
        there = all(
            one.state in ("here", "connected") and one.knows != "behind" for one in self.nodes
        )
        return bool(there and self.leader and not self.leaderless)


def look(cluster: Cluster, monitor_url: str) -> Standing:
    """Ask this machine's server."""
    try:
        routes = server.monitored(f"{monitor_url}/routez", patience=PATIENCE).get("routes") or ()
        held = server.monitored(f"{monitor_url}/jsz?accounts=true&streams=true", patience=PATIENCE)
    except (OSError, ValueError) as error:
        gone = [Stands(node=n.name, address=n.address, state="unknown") for n in cluster.nodes]
        return Standing(nodes=gone, error=str(getattr(error, "reason", error)))
    connected = {route.get("remote_name") for route in routes}
    leaders = _leaders(held)
    nodes = []
    for node in cluster.nodes:
        state: State = "connected" if node.name in connected else "away"
        if node.name == cluster.own:
            state = "here"
        leads = sum(1 for leader in leaders.values() if leader == node.name)
        nodes.append(Stands(node=node.name, address=node.address, state=state, leads=leads))
    return Standing(
        nodes=nodes,
        leader=held.get("meta_cluster", {}).get("leader", ""),
        leaderless=sorted(name for name, leader in leaders.items() if not leader),
    )


def knowing(standing: Standing, found: Sequence[Facts]) -> Standing:
    """With what the agents of the nodes have said that they have."""
    late, known = behind(found) if found else [], {one.node for one in found}

    def knows(node: str) -> Knows:
        return "behind" if node in late else "latest" if node in known else "unknown"

    told = [msgspec.structs.replace(one, knows=knows(one.node)) for one in standing.nodes]
    return msgspec.structs.replace(standing, nodes=told)


def _leaders(held: dict[str, Any]) -> dict[str, str]:
    """Each stream of which this server has a copy, and who leads it."""
    return {
        stream["name"]: stream.get("cluster", {}).get("leader", "")
        for account in held.get("account_details") or ()
        for stream in account.get("stream_detail") or ()
    }
