"""What a hub gives a host into its token, and how it is taken back.

The one rule: what a token holds is the host's alone, and all of it is void when the host gets
another token or is removed (once the server was told: `server.reload`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opsmesh.router.auth.ca import names
from opsmesh.router.auth.store import Store
from opsmesh.router.hub import leaf
from opsmesh.router.joined import LEAF_CREDS, Kind
from opsmesh.router.roles import Role, own_name, own_names
from opsmesh.schemas.envelope import host_token

#: Where a machine reaches its own broker.
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
#: The roles a host has at its hub: a leaf's server does the rest there by itself.
ROLES_OF: Final[dict[Kind, tuple[Role, ...]]] = {
    "leaf": ("viewer", "handler"),
    "thin": ("producer", "viewer", "sink", "handler"),
}


def certify(store: Store, host: str, addresses: Sequence[str]) -> None:
    """Give the hub's server a certificate for these addresses, and make the authority for that;
    nothing where it has both. The server takes it up at its next start."""
    store.create()
    authority = store.ca
    if not authority.exists:
        authority.create(host)
    wanted = list(dict.fromkeys([*addresses, host, *LOOPBACK]))
    if not authority.server.exists() or set(names(authority.server)) != set(wanted):
        authority.issue_server(host, wanted)
        store.own(host)


def issue(store: Store, host: str, kind: Kind, roles: Sequence[Role] = ()) -> dict[str, bytes]:
    """Credentials and a certificate for this host, by their file names in `joined/`; the
    credentials that it had are void."""
    ours = {f"{host_token(host)}-leaf", *own_names(host)}
    for name in ours & store.manifest().users.keys():
        store.revoke(name)
    made = {
        f"{role}.creds": store.issue(own_name(role, host), role=role, host=host)
        for role in roles or ROLES_OF[kind]
    }
    if kind == "leaf":
        name, allowed = f"{host_token(host)}-leaf", leaf.permissions(host)
        made[LEAF_CREDS] = store.issue(name, role="leaf", host=host, allowed=allowed)
    trusted = {"ca.pem": store.ca.bundle.read_bytes(), "host.pem": store.ca.certificate(host)}
    return {name: text.encode() for name, text in made.items()} | trusted


def revoke(store: Store, host: str) -> None:
    """Take back whatever was issued for this host, by a token or by hand."""
    for name, user in store.manifest().users.items():
        if user.host == host_token(host):
            store.revoke(name)
