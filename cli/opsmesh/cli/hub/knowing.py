"""Which nodes of a cluster know of what was changed on one of them: hosts, credentials, keys.

For the commands that change it, `hub cluster ls` and `status`. The one rule: nobody is told that
all know before all have said so.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from opsmesh.cli import output
from opsmesh.router import connection
from opsmesh.router.errors import RouterError
from opsmesh.router.hub import cluster, gossip
from opsmesh.router.hub.cluster import Cluster
from opsmesh.router.hub.replica import Facts, behind
from opsmesh.schemas import times

#: Seconds that a command waits for the other nodes.
WAIT: Final = 5.0
#: Seconds that a node may be behind before that is a problem.
LAG: Final = 60.0
#: What is to be done about a node that stays behind.
FIX: Final = "there: opsmesh status; the log of its agent says why"


def keeper_only() -> None:
    """Fails on a node of a cluster that is not its keeper: the keeper's word would be taken."""
    own = cluster.read()
    if own is not None and own.own != own.keeper:
        output.fail(
            f"the credentials of cluster {own.name} are issued on {own.keeper}",
            hint=f"ssh {own.keeper} opsmesh auth …; revoking is done on any node",
            code=output.USAGE,
        )


def tell(*, running: bool) -> None:
    """After a change that the server here has read, if it is `running`: have the other nodes take
    it, and say which may not have."""
    if (own := cluster.read()) is None:
        return
    found = facts(own, within=WAIT) if running else []
    late = set(behind(found)) if found else set()
    # while something newer has to come here, nobody can say that it holds what was done here
    know = set() if own.own in late else {one.node for one in found} - late
    left = [other.name for other in own.others if other.name not in know]
    names = " and ".join(left)
    if not left:
        output.note(f"{' and '.join(other.name for other in own.others)} know of it")
    elif not found:
        output.note(f"{names} hear of it once the broker and the agent run here")
    else:
        output.note(f"{names} may not know of it yet: opsmesh hub cluster ls")


def facts(own: Cluster, *, within: float = 0) -> list[Facts]:
    """What the nodes have, this one first; empty when the server here does not answer."""
    try:
        return asyncio.run(gossip.stand(own, within=within))
    except (*connection.AWAY, RouterError):
        return []


def late(found: list[Facts]) -> list[str]:
    """The nodes that are behind for longer than is well."""
    newest = max(found, key=lambda one: one.order)
    return behind(found) if time.time() - newest.at_us / 1e6 > LAG else []


async def problems() -> list[tuple[str, str]]:
    """What `status` says, on a node: what is wrong, and what can be done."""
    if (own := cluster.read()) is None:
        return []
    try:
        found = await gossip.stand(own)
    except (*connection.AWAY, RouterError):  # said elsewhere
        return []
    since = output.local(times.format_us(max(one.at_us for one in found)))
    what = "does not know of hosts, credentials or keys that were changed until"
    return [(f"node {name} {what} {since}", FIX) for name in late(found)]
