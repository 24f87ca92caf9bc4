"""How the supervisor comes to run: `python -m opsmesh.router.launch`, its plan, and its lock.

`opsmesh up` takes the lock, decides what is to run, and becomes this process (or starts it, with
`--detach`). So the process that stays has never loaded what was needed to decide.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from opsmesh.router.component import Component
from opsmesh.router.supervise import Supervisor


def command(components: Sequence[Component], *, nats_url: str, lock: int) -> tuple[list[str], int]:
    """The supervisor's command line, and the descriptor of its plan: both it and `lock` must be
    inherited. The plan goes through a pipe, so that no file and no `ps` line holds it."""
    plan = {"nats_url": nats_url, "components": [c.as_dict() for c in components]}
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as file:
        json.dump(plan, file)
    return [sys.executable, "-m", "opsmesh.router.launch", str(reader), str(lock)], reader


def main(argv: Sequence[str]) -> int:
    """`launch PLAN_FD LOCK_FD`: supervise what `command` described."""
    with os.fdopen(int(argv[0])) as file:
        plan = json.load(file)
    os.set_inheritable(int(argv[1]), False)  # held until this process ends
    components = [Component.from_dict(c) for c in plan["components"]]
    Supervisor(components, nats_url=plan["nats_url"]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
