"""`python -m opsmesh.router.units.begin`: start the units of the plan that the target does not want
by name: producers whose tools are here, and what the settings add.

It runs as root for a system's units, so it takes nothing from the plan but names.
"""

from __future__ import annotations

import subprocess
import sys

from opsmesh.router.units import names
from opsmesh.router.units import plan as plans


def main() -> int:
    """The manager's own exit code; the units start once the plan's unit is done, and are not
    waited for."""
    plan = plans.read()
    if plan is None:
        print("no plan lies here: see opsmesh-plan.service", file=sys.stderr)
        return 1
    wanted = []
    for one in plan.components:
        if one.name in names.FIXED or one.waits_for:
            continue
        unit = names.unit(one.name)
        if unit is None:
            print(f"{one.name}: no unit can have this name, it does not run", file=sys.stderr)
            continue
        wanted.append(unit)
    if not wanted:
        return 0
    command = names.systemctl(plan.manager, "start", "--no-block", "--", *wanted)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
