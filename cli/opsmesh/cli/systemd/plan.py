"""`python -m opsmesh.cli.systemd.plan user|system`: what `opsmesh up` does before anything starts,
for `opsmesh-plan.service`. With `--again` it only looks which producers can run by now.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError
from pydantic_settings import SettingsError

from opsmesh.cli import components, config_file
from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import starter
from opsmesh.router import paths, supervisor_state
from opsmesh.router.containers import look
from opsmesh.router.errors import AlreadyRunning, RouterError
from opsmesh.router.settings import Settings
from opsmesh.router.units import plan as plans
from opsmesh.router.units.names import Manager

AGAIN: Final = "--again"


def main(arguments: Sequence[str]) -> int:
    """1 with the reason in the unit's log where no plan can be made."""
    manager: Manager = "system" if "system" in arguments else "user"
    try:
        config_file.read()
        settings = Settings()
        if AGAIN in arguments:
            _again(settings)
        else:
            _plan(settings, manager)
    except (ValidationError, SettingsError, ConfigError, RouterError) as error:
        for problem in config_file.explain(error) or [str(error)]:
            print(f"error: {problem}", file=sys.stderr)
        if hint := getattr(error, "hint", ""):
            print(hint, file=sys.stderr)
        return 1
    return 0


def _plan(settings: Settings, manager: Manager) -> None:
    lock = supervisor_state.lock()
    try:
        supervisor_state.end_leftovers()
        if look.broker_runs():  # two on one store would destroy it
            raise AlreadyRunning("the broker in its container", None, hint="make compose-down")
        if written := starter.write(Path(paths.config_dir())):
            print(f"wrote {written}: what runs when something happens; it is yours to change")
        made = components.plan(settings)
        plans.write(plans.Plan(manager=manager, nats_url=made.nats_url, components=made.components))
    finally:
        os.close(lock)
    waiting = [one.name.partition(":")[2] for one in made.components if one.waits_for]
    print(f"{len(made.components) - len(waiting)} components, NATS at {made.nats_url}")
    if waiting:
        print(f"waiting for their tools: {', '.join(waiting)}")


def _again(settings: Settings) -> None:
    plan = plans.read()
    if plan is None:
        return
    reasons = components.producers(settings)
    found = [
        replace(one, waits_for=reasons.get(one.name.removeprefix("producer:")) or "")
        if one.waits_for
        else one
        for one in plan.components
    ]
    plans.write(replace(plan, components=found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
