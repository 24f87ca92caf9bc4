"""What the supervisor tells everybody else: `supervisor.json`, and the lock that only it holds.

The file is replaced as a whole at every change. A supervisor that was killed leaves it behind, so
a reader asks `State.alive` before it believes the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from opsmesh.router import paths
from opsmesh.router.component import birth
from opsmesh.router.errors import AlreadyRunning
from opsmesh.router.units import names
from opsmesh.router.units.names import Manager

#: The file that a supervisor locks for itself, and systemd's units or containers together.
LOCK = "supervisor.lock"
#: The signal that asks the supervisor to try at once what it would try later.
AGAIN = signal.SIGUSR1
#: Seconds that processes of a supervisor that was killed get to end by themselves.
LEFTOVER_PATIENCE = 10.0


@dataclass(kw_only=True)
class Status:
    """One component, as the supervisor sees it. `birth` tells its pid from a later process's."""

    name: str
    log: str
    state: str = "stopped"
    pid: int | None = None
    birth: int | None = None
    restarts: int = 0
    since: str = ""
    last_exit: str | None = None
    #: It does not run, and is tried again now and then, or when `try_again` asks for it.
    tried: bool = False
    #: Under systemd: its unit, and whose manager has it ("user", "system").
    unit: str = ""
    manager: Manager = "user"
    #: In a container: the command that shows what it says.
    shown_by: str = ""

    @property
    def see(self) -> str:
        """The command that shows its log."""
        if self.unit:
            return names.journal(self.manager, self.unit)
        return self.shown_by or f"tail {self.log}"

    @property
    def line(self) -> str:
        """For people."""
        mark = {"running": "✓", "starting": "…", "stopped": "…", "waiting": "–"}.get(
            self.state, "✗"
        )
        what = f"pid {self.pid}" if self.pid else self.last_exit or "-"
        return f"{mark} {self.name:<18} {self.state:<8} {what:<12} {self.log}"


@dataclass(kw_only=True)
class State:
    """The whole file."""

    pid: int
    birth: int | None
    started: str
    nats_url: str
    components: list[Status] = field(default_factory=list)
    #: Whose systemd runs it; empty for our own supervisor.
    manager: Manager | Literal[""] = ""
    #: Docker does.
    containers: bool = False

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return _runs(self.pid, self.birth)

    @property
    def anew(self) -> str:
        """The command that ends the mesh and starts it with what is true now."""
        if self.containers:
            return "make compose-down && make compose-up"
        if self.manager:
            return names.for_people(self.manager, "restart", names.TARGET)
        return "opsmesh down && opsmesh up --detach"

    @property
    def settled(self) -> bool:
        """Whether every component runs, but those that wait for their tools."""
        states = {component.state for component in self.components}
        return bool(states) and states <= {"running", "waiting"}


def path() -> Path:
    """`supervisor.json` in the runtime folder."""
    return Path(paths.runtime_dir(), "supervisor.json")


def write(state: State) -> None:
    """Replace the file. It tells of the present only, so it is not synced to disk."""
    target = path()
    new = target.with_name(f".{target.name}.{os.getpid()}")
    new.write_text(json.dumps(asdict(state)))
    new.replace(target)


def read() -> State | None:
    """The last state that was written, by a supervisor that may be gone; None if there is none."""
    try:
        data: dict[str, Any] = json.loads(path().read_text())
        components = [Status(**component) for component in data.pop("components")]
        return State(**data, components=components)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def running() -> State | None:
    """The state of the supervisor that runs now."""
    state = read()
    return state if state is not None and state.alive else None


def try_again(name: str) -> bool:
    """Have the supervisor try a component that waits, or has failed, now; whether it was asked.

    One that lists such a component knows the signal; another would end by it.
    """
    state = running()
    if state is None or not any(
        c.name == name and c.state in ("waiting", "failed") and c.tried for c in state.components
    ):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(state.pid, AGAIN)
    return True


def lock() -> int:
    """A descriptor that holds the lock until it is closed; AlreadyRunning when somebody has it.

    It may be inherited: `up` takes the lock, and the supervisor that it becomes keeps it.
    """
    folder = Path(paths.private_dir(paths.runtime_dir()))
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        state = running()
        raise AlreadyRunning("opsmesh", state.pid if state else None) from None
    return descriptor


def end_leftovers() -> None:
    """Wait until no component of a supervisor that was killed is left; the lock must be held.

    The kernel has told them to end. Two brokers on one store, or two agents on one socket, would
    be worse than the wait; what ignores it is killed after LEFTOVER_PATIENCE.
    """
    state = read()
    left = [(c.pid, c.birth) for c in state.components if c.pid] if state else []
    how: signal.Signals | None = signal.SIGTERM
    deadline = time.monotonic() + LEFTOVER_PATIENCE
    while left := [(pid, born) for pid, born in left if _runs(pid, born)]:
        if how is not None:
            for pid, _ in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, how)
        how = signal.SIGKILL if time.monotonic() > deadline else None
        time.sleep(0.02)


def _runs(pid: int, born: int | None) -> bool:
    return born is not None and birth(pid) == born
