"""As whom the agent of a cluster's node talks to those of the other nodes.

The one rule: it is a user of the servers' own account, the system account. No user of the mesh, an
admin included, hears or says anything there; whoever can make such a user has `keys.json`, and is
everybody already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from opsmesh.router import files, paths
from opsmesh.router.auth import creds, grants, jwt
from opsmesh.router.auth.permissions import INBOX
from opsmesh.router.auth.store import Store
from opsmesh.schemas.envelope import host_token

#: The first token of what nodes tell each other.
NODES: Final = "nodes"


def file(store: Store) -> Path:
    """Its credentials, beside those of this machine's other processes."""
    return store.folder / "own" / "node.creds"


def issue(store: Store, host: str) -> None:
    """Write new ones; what was issued before stays valid, as long as the cluster has its keys."""
    paths.private_dir(str(file(store).parent))
    system, key = jwt.key_of(store.keys().system), jwt.new_key("user")
    name = f"{host_token(host)}-node"
    token = jwt.user(
        system,
        key.public,
        name=name,
        account=system.public,
        # answers go to inboxes of the others; nobody hears of one that is not its own
        publish=grants.lists((f"{NODES}.>", f"{INBOX}.>"), ()),
        subscribe=grants.lists((f"{NODES}.>", f"{INBOX}.{name}.>"), ()),
    )
    files.write_private(file(store), creds.text(token, key, name=name).encode())
