"""A supervised component: what it is, and the process that runs it. Standard library only.

The supervisor lives for weeks, so nothing here imports pydantic, nats or urllib. A component's
process ends when its supervisor ends, however that ended: the kernel sends it SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from opsmesh.router import activation, notify, paths

#: Kinds of components in the order of their start; the same rank starts and stops together.
RANKS = {"broker": 0, "agent": 1, "handlers": 2, "sink": 2, "producer": 3}
#: What systemd gave to the supervisor is the supervisor's.
GIVEN = (notify.VARIABLE, notify.WATCHDOG, notify.WATCHDOG_PID, *activation.VARIABLES)
#: A log that is larger than this when its component starts becomes `NAME.log.1`.
LOG_LIMIT = 10 * 2**20

#: prctl(2): the signal that this process gets when its parent dies.
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class Component:
    """One process to keep alive. It is ready when its probe says so, or (`notifies`) when it says
    so itself by sd_notify; without either once it has stayed up."""

    name: str
    argv: Sequence[str]
    kind: str = "producer"
    ready: Mapping[str, Any] | None = None
    notifies: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    #: Why it cannot run yet: it is not started with the others, but tried now and then.
    waits_for: str = ""
    stop_signal: int = signal.SIGTERM

    @property
    def rank(self) -> int:
        """Its place in the order of starts."""
        return RANKS[self.kind]

    @property
    def file_name(self) -> str:
        """Its name as part of a path."""
        return self.name.replace("/", "_").replace(":", "-")

    @property
    def log(self) -> Path:
        """Where its standard output and error go."""
        return logs_dir() / f"{self.file_name}.log"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for the way from the command line to the supervisor."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The other way."""
        return cls(**data)


def logs_dir() -> Path:
    """`logs` in the state folder."""
    return Path(paths.state_dir(), "logs")


def open_log(path: Path) -> int:
    """A descriptor to append to; a log over LOG_LIMIT is set aside first, one generation kept."""
    paths.private_dir(str(path.parent))
    try:
        if path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_name(path.name + ".1"))
    except FileNotFoundError:
        pass
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def spawn(component: Component, *, notify_socket: str | None = None) -> subprocess.Popen[bytes]:
    """Start the process in a group of its own; OSError when that cannot be done.

    A group of its own, because Ctrl-C on a terminal goes to the whole group, and the order in
    which components stop is the supervisor's to keep.
    """
    log = open_log(component.log)
    try:
        return subprocess.Popen(
            component.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(component, notify_socket),
            process_group=0,
            preexec_fn=_in_child(os.getpid()),
        )
    finally:
        os.close(log)


def _environment(component: Component, notify_socket: str | None) -> dict[str, str]:
    env = {**os.environ, **component.env}
    for given in GIVEN:
        env.pop(given, None)
    if notify_socket is not None:
        env[notify.VARIABLE] = notify_socket
    return env


def _in_child(supervisor: int) -> Callable[[], None]:
    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the supervisor blocks what it waits for
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != supervisor:  # it died before prctl could take effect
            os._exit(1)

    return prepare


def birth(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none (or a zombie).

    With it a process id that was given to another process since is told apart.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


def exit_text(code: int) -> str:
    """How a process ended, for people: `exit 1`, `SIGKILL`."""
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
