"""Which profiles a handlers process decides, by where they run.

On a leaf there are two: one at the host's own broker, which goes on when the host is cut off, and
one at the hub's, where everybody's events are. The one rule: a profile is one's or the other's.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from opsmesh.router import joined

#: all: on a host that has one broker to work with. host: on a leaf, what its own events are enough
#: for. mesh: the rest, over the hub.
Scope = Literal["all", "host", "mesh"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


def decides(scope: Scope, run_on: str) -> bool:
    """Whether a process of this scope decides profiles that run there."""
    return scope == "all" or (scope == "host") == (run_on == "origin")


def at_own_broker() -> Scope:
    """What the handlers at this host's own broker decide."""
    member = joined.read()
    return "host" if member is not None and member.hub.kind == "leaf" else "all"
