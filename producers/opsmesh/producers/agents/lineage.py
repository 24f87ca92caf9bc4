"""Whose terminal a process is in, and so which session what it does belongs to.

An agent may work in a daemon that the first of its windows has started: its environment is that of
the first one, for all of them. So an environment counts only where the process, or one that it
comes from, has a terminal. Standard library's smallest parts only.
"""

from __future__ import annotations

import os

from opsmesh.router import session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Generations that are looked at.
DEPTH = 16


def session_of(pid: int, env: Mapping[str, str]) -> str:
    """The session (docs/sessions.md) of a process with this environment."""
    if said := env.get(session.SESSION):
        return said
    return session.of_environment(env) if has_terminal(pid) else session.login(env)


def has_terminal(pid: int) -> bool:
    """Whether a process, or one that it comes from, has a terminal."""
    for _ in range(DEPTH):
        parent, terminal = _stat(pid)
        if terminal:
            return True
        if parent <= 1:
            return False
        pid = parent
    return False


def environment(pid: int) -> dict[str, str]:
    """What a process of this user was started with; empty for one that is gone, or another's."""
    try:
        file = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    data = b""
    try:
        while part := os.read(file, 1 << 16):
            data += part
    except OSError:
        return {}
    finally:
        os.close(file)
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def holder(path: str, names: tuple[str, ...]) -> int | None:
    """A process of this user that has the file open, among those whose name begins so."""
    for pid in os.listdir("/proc"):  # noqa: PTH208 (pathlib costs start-up time)
        if pid.isdecimal() and _name(pid).startswith(names) and _has_open(pid, path):
            return int(pid)
    return None


def _has_open(pid: str, path: str) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        for number in os.listdir(folder):  # noqa: PTH208
            if os.readlink(f"{folder}/{number}") == path:  # noqa: PTH115
                return True
    except OSError:  # it ended just now, or is another's
        return False
    return False


def _name(pid: str) -> str:
    return _read(f"/proc/{pid}/comm").decode(errors="replace").strip()


def _stat(pid: int) -> tuple[int, int]:
    """The parent, and the terminal's number (proc(5): fields 4 and 7); the name before them may
    hold anything."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    try:
        return int(fields[1]), int(fields[4])
    except (IndexError, ValueError):
        return 0, 0


def _read(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, 4096)
    except OSError:
        return b""
    finally:
        os.close(file)
