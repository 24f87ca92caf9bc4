"""How the units are, in the supervisor's own words, so that whoever looks need not know which of
the two runs the mesh. The manager is asked only where a plan of units lies.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from typing import Final

from opsmesh.router import component
from opsmesh.router.component import Component
from opsmesh.router.supervisor_state import State, Status
from opsmesh.router.units import names
from opsmesh.router.units import plan as plans
from opsmesh.router.units.names import Manager
from opsmesh.router.units.plan import Plan
from opsmesh.schemas import times

#: Seconds that a manager has for its answer.
PATIENCE: Final = 10.0
#: What of a unit is asked.
_ASKED: Final = (
    "Id",
    "ActiveState",
    "SubState",
    "MainPID",
    "NRestarts",
    "ExecMainCode",
    "ExecMainStatus",
    "StateChangeTimestampMonotonic",
)
#: `ExecMainCode` is si_code of waitid(2).
_EXITED: Final = "1"
#: In which states something of the mesh is at work.
_AT_WORK: Final = ("active", "activating", "deactivating", "reloading")

Facts = Mapping[str, str]


def running() -> State | None:
    """The units' states; None when none of them is at work: a socket that listens is, for it starts
    the rest."""
    plan = plans.read()
    if plan is None:
        return None
    units = {one.name: unit for one in plan.components if (unit := names.unit(one.name))}
    told = ask(plan.manager, [names.PLAN, names.SOCKET, *units.values()])
    looked = [told.get(unit, {}) for unit in (names.SOCKET, *units.values())]
    if not any(one.get("ActiveState") in _AT_WORK for one in looked):
        return None
    started = _since(told.get(names.PLAN, {})) or times.format_us(times.now_us())
    return State(
        pid=0,
        birth=None,
        started=started,
        nats_url=plan.nats_url,
        components=[
            _status(one, units[one.name], plan, told.get(units[one.name], {}), started)
            for one in plan.components
            if one.name in units
        ],
        manager=plan.manager,
    )


def ask(manager: Manager, units: list[str]) -> dict[str, Facts]:
    """What the manager says of these units, by their names; nothing where none answers."""
    command = names.systemctl(manager, "show", f"--property={','.join(_ASKED)}", "--", *units)
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, Facts] = {}
    for block in answer.split("\n\n"):
        facts = dict(line.partition("=")[::2] for line in block.splitlines())
        if "Id" in facts:
            found[facts["Id"]] = facts
    return found


def start(component_name: str) -> bool:
    """Have the manager start a component's unit that does not run; whether it was asked."""
    plan, unit = plans.read(), names.unit(component_name)
    if plan is None or unit is None or plan.component(component_name) is None:
        return False
    command = names.systemctl(plan.manager, "start", "--no-block", "--", unit)
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _status(one: Component, unit: str, plan: Plan, facts: Facts, started: str) -> Status:
    pid = int(facts.get("MainPID", "0")) or None
    state = _state(facts, waits=bool(one.waits_for))
    return Status(
        name=one.name,
        log="",
        state=state,
        pid=pid,
        birth=component.birth(pid) if pid else None,
        restarts=int(facts.get("NRestarts", "0")),
        since=_since(facts) or started,
        last_exit=one.waits_for if state == "waiting" else _last_exit(facts, pid),
        tried=state == "waiting",
        unit=unit,
        manager=plan.manager,
    )


def _state(facts: Facts, *, waits: bool) -> str:
    active = facts.get("ActiveState", "inactive")
    if active == "activating":
        return "backoff" if facts.get("SubState") == "auto-restart" else "starting"
    if active == "inactive":
        return "waiting" if waits else "stopped"
    return {"active": "running", "reloading": "running", "failed": "failed"}.get(active, "stopped")


def _last_exit(facts: Facts, pid: int | None) -> str | None:
    code, status = facts.get("ExecMainCode", "0"), facts.get("ExecMainStatus", "0")
    if pid or code == "0" or not status.isdigit():
        return None
    return component.exit_text(int(status) if code == _EXITED else -int(status))


def _since(facts: Facts) -> str:
    """When the unit came into its state: the manager counts on the clock that never jumps."""
    told = facts.get("StateChangeTimestampMonotonic", "0")
    if not told.isdigit() or told == "0":
        return ""
    ago_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 - int(told)
    return times.format_us(times.now_us() - ago_us)
