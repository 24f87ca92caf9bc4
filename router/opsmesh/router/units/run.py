"""`python -m opsmesh.router.units.run NAME`: become a component of the plan, in its unit.

The one rule: it holds the mesh's lock, together with the other units, for the life of the process.
So a supervisor cannot begin beside the units, and no unit beside a supervisor.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from opsmesh.router import notify, paths, supervisor_state
from opsmesh.router.component import Component
from opsmesh.router.supervise import CANNOT_RUN
from opsmesh.router.units import plan as plans

#: Asks whether the plan has this component, for ExecCondition=: 0 when it has.
PLANNED: Final = "--planned"
#: Asks whether no supervisor runs, before the socket is taken: 0 when none does.
FREE: Final = "--free"


def main(arguments: Sequence[str]) -> int:
    """An exit code where the component does not begin; CANNOT_RUN where it cannot in this mesh."""
    if FREE in arguments:
        return CANNOT_RUN if _taken() else 0
    *flags, name = arguments
    plan = plans.read()
    one = plan.component(name) if plan is not None else None
    if PLANNED in flags:
        if one is None:
            _say(f"{name} is no part of this mesh, as its settings are")
        return 0 if one is not None else 1
    if one is None:
        _say(f"{name} is not in the plan; see opsmesh-plan.service, which makes it anew")
        return CANNOT_RUN
    if (lock := _share(os.O_CREAT)) is None:
        return CANNOT_RUN
    os.set_inheritable(lock, True)
    return _become(one)


def _become(one: Component) -> NoReturn:
    env = {**os.environ, **one.env}
    if one.kind == "broker":
        _watch(one, env)
        env.pop(notify.VARIABLE, None)
    sys.stdout.flush()
    os.execvpe(one.argv[0], list(one.argv), env)  # noqa: S606 (the plan's own command, no shell)


def _taken() -> bool:
    """Whether a supervisor runs. Makes nothing: root asks, and what it made would be root's."""
    try:
        lock = _share(0)
    except FileNotFoundError:
        return False
    if lock is not None:
        os.close(lock)
    return lock is None


def _share(create: int) -> int | None:
    """A descriptor that shares the lock; None, and it is said, when a supervisor has it alone."""
    path = Path(paths.runtime_dir(), supervisor_state.LOCK)
    if create:
        paths.private_dir(str(path.parent))
    lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | create, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        state = supervisor_state.running()
        who = f" (pid {state.pid})" if state else ""
        _say(f"the mesh runs by opsmesh up{who}: opsmesh down, then start the units again")
        return None
    return lock


def _watch(one: Component, env: dict[str, str]) -> None:
    """nats-server says nothing to systemd: a process beside it asks it, and says so."""
    if one.ready is None or not env.get(notify.VARIABLE):
        return
    argv = [sys.executable, "-P", "-m", "opsmesh.router.units.watch", json.dumps(one.ready)]
    subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
