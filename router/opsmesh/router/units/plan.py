"""What the units run: the plan of `opsmesh-plan.service`, `units.json` in the runtime folder.

It is there from the units' first start until the machine ends; that the units run it does not say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opsmesh.router import paths
from opsmesh.router.component import Component
from opsmesh.router.files import write_private
from opsmesh.router.units.names import Manager


@dataclass(frozen=True, kw_only=True)
class Plan:
    """As the supervisor's; `nats_url` is for people and holds no password."""

    manager: Manager
    nats_url: str
    components: Sequence[Component]

    def component(self, name: str) -> Component | None:
        """The component of that name."""
        return next((one for one in self.components if one.name == name), None)


def path() -> Path:
    """Where the plan lies."""
    return Path(paths.runtime_dir(), "units.json")


def write(plan: Plan) -> None:
    """Replace the file. A producer's options may be secrets: nobody else may read it."""
    told = {
        "manager": plan.manager,
        "nats_url": plan.nats_url,
        "components": [one.as_dict() for one in plan.components],
    }
    write_private(path(), json.dumps(told).encode())


def read() -> Plan | None:
    """The plan; None where no units have been started with these folders."""
    try:
        told = json.loads(path().read_bytes())
        return Plan(
            manager="system" if told["manager"] == "system" else "user",
            nats_url=str(told["nats_url"]),
            components=[Component.from_dict(one) for one in told["components"]],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
