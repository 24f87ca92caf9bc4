"""Which unit is which component, and which manager has them."""

from __future__ import annotations

import re
from typing import Final, Literal

#: The whole mesh.
TARGET: Final = "opsmesh.target"
#: Decides what runs here.
PLAN: Final = "opsmesh-plan.service"
#: The ingest socket.
SOCKET: Final = "opsmesh-agent.socket"
#: Components that have a unit of their own; the target wants them by itself.
FIXED: Final = ("broker", "agent", "handlers", "sink")

Manager = Literal["user", "system"]

_PRODUCER: Final = "producer:"
#: What can stand in a unit's name as it is.
_PLAIN: Final = re.compile(r"[A-Za-z0-9:_.-]+")


def unit(component: str) -> str | None:
    """The unit of a component; None for a name that no unit can have."""
    if component in FIXED:
        return f"opsmesh-{component}.service"
    kind, name = "component", component
    if component.startswith(_PRODUCER):
        kind, name = "producer", component.removeprefix(_PRODUCER)
    return f"opsmesh-{kind}@{name}.service" if _PLAIN.fullmatch(name) else None


def systemctl(manager: Manager, *words: str) -> list[str]:
    """The command that asks a manager."""
    return ["systemctl", *(["--user"] if manager == "user" else []), *words]


def stop(manager: Manager) -> list[str]:
    """The command that ends all units, and returns once they have ended: of a target alone it would
    return at once."""
    return systemctl(manager, "stop", TARGET, "opsmesh-*")


def journal(manager: Manager, unit: str) -> str:
    """The command that shows a unit's log, for people."""
    return f"journalctl --{manager} --unit={unit} --lines=50"


def for_people(manager: Manager, *words: str) -> str:
    """A command that a person can type to have a manager do something."""
    return " ".join(["systemctl --user" if manager == "user" else "sudo systemctl", *words])
