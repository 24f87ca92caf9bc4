"""Users of the broker, as `opsmesh auth ls` and `show` tell of them."""

from __future__ import annotations

from typing import Any

from opsmesh.cli import output
from opsmesh.router.auth import grants
from opsmesh.router.auth.manifest import User
from opsmesh.router.auth.reads import rights


def show(name: str, user: User, *, as_json: bool) -> None:
    """One user, and every subject it may publish, subscribe to and read."""
    given = grants.to(name, user)
    publish, subscribe = given.publish, given.subscribe
    reads = sorted({one for some in rights(user.host, user.reads).values() for one in some})
    reads = reads if user.reads else []
    if as_json:
        facts = {**row(name, user), "publish": publish, "subscribe": subscribe, "reads": reads}
        output.as_json({**facts, "issued": user.issued, "expires": user.expires, "key": user.key})
        return
    columns = ["name", "role", "host", "topics", "profiles", "issued"]
    output.table([row(name, user)], columns, empty="")
    lists = {"publishes": publish, "subscribes": subscribe}
    for title, subjects in {**lists, **({"reads, by the agent": reads} if reads else {})}.items():
        print(title)
        for subject in subjects:
            print(f"  {subject}")


def row(name: str, user: User) -> dict[str, Any]:
    """A line of a table."""
    return {
        "name": name,
        "role": user.role,
        "host": user.host,
        "topics": " ".join(user.topics),
        "profiles": " ".join(dict.fromkeys(one.profile for one in user.reads.values())),
        "issued": output.local(user.issued),
        "expires": output.local(user.expires) if user.expires else "",
        "older_keys": len(user.before),
        "key": user.key[:12],
    }
