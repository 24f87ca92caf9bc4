"""Who may connect as what: the roles of NATS users, from the weakest to the strongest.

A process names the role it needs; the credentials of exactly that role are used where this machine
has them, else those of the next stronger one (an administrator's laptop need not hold five files).
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from opsmesh.schemas.envelope import host_token

#: producer: publishes its own topics under its own host. viewer: reads, changes nothing. sink:
#: reads everything for the archive. handler: reads what its profiles listen to, writes what they
#: did. admin: makes streams, answers, redrives; what the command line is on one's own machine.
Role = Literal["producer", "viewer", "sink", "handler", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)


def own_name(role: Role, host: str) -> str:
    """The user as which a machine's own processes of that role connect to its broker."""
    return f"{host_token(host)}-{role}"


def own_names(host: str) -> set[str]:
    """All of those."""
    return {own_name(role, host) for role in ROLES}
