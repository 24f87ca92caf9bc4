"""What being a hub or a leaf adds to the embedded server's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from opsmesh.router import joined
from opsmesh.router.auth.store import Store
from opsmesh.router.hub import cluster, leaf, plan
from opsmesh.router.joined import LEAF_CREDS, Joined
from opsmesh.router.server_config import Block

#: A connection on which nothing comes back is given up after three of these: by default it takes a
#: server six minutes to see that a cable was pulled.
PING: Final = {"ping_interval": "10s", "ping_max": 2}
LOOPBACK: Final = "127.0.0.1"
#: Where the streams of a server lie that is no node of a cluster.
STORE: Final = "jetstream"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A machine's place among others; the defaults are those of one on its own. `leaf_listen` is
    where a hub's server waits for those of leaves, `remote` what a leaf's server connects to."""

    listen: str = LOOPBACK
    port: int | None = None
    domain: str | None = None
    leaf_listen: str | None = None
    remote: Block | None = None
    cluster: Block | None = None
    #: The folder of its streams, in the state folder.
    store: str = STORE
    more: Block = field(default_factory=dict)

    def leafnodes(self, store: Store) -> Block | None:
        """The server's `leafnodes`, with the trust of this machine's broker."""
        if self.leaf_listen is not None:
            tls = {"tls": store.ca.server_block()} if store.server_certificate.exists() else {}
            return {"listen": self.leaf_listen, **tls}
        if self.remote is not None:
            return {"remotes": [{**self.remote, "account": store.account}]}
        return None


def spread() -> Spread:
    """That of this machine."""
    hub, member, node = plan.read(), joined.read(), cluster.read()
    if node is not None:
        return Spread(
            listen=node.binds,
            port=node.node.port,
            domain=plan.DOMAIN,
            leaf_listen=cluster.reach(node.binds, node.node.leaf_port),
            cluster=cluster.block(node),
            store=cluster.STORE,
            more=PING,
        )
    if hub is not None:
        return Spread(
            listen=hub.listen,
            port=hub.port,
            domain=plan.DOMAIN,
            leaf_listen=f"{hub.listen}:{hub.leaf_port}",
            more=PING,
        )
    if member is not None and member.hub.kind == "leaf":
        return Spread(domain=leaf.domain(member.hub.host), remote=remote(member), more=PING)
    return Spread()


def remote(member: Joined) -> dict[str, Any]:
    """The hub as the server of this leaf connects to it."""
    return {
        "urls": member.hub.leaf_urls,
        "credentials": str(member.folder / LEAF_CREDS),
        "deny_imports": leaf.refused(member.hub.host),
        **_tls(member),
    }


def _tls(member: Joined) -> dict[str, Any]:
    """By which the hub's server is known, and this one."""
    ca, own = member.file("ca.pem"), member.file("host.pem")
    if ca is None or own is None:
        return {}
    return {"tls": {"ca_file": str(ca), "cert_file": str(own), "key_file": str(own)}}
