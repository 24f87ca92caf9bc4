"""Extension hosts: the files by which each says that it runs, and the process behind each file.

The extension takes its file away when VS Code ends it (packages/vscode-opsmesh/src/alive.js). So a
process that is gone while its file is there died, unless the whole editor went with it: a process
is known by its pid and the tick in which it was started, so that no successor is taken for it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

#: Hosts that are looked at: a window has one, so more are files that somebody else put there.
MOST: Final = 256
#: Largest file of one, in bytes.
LARGEST: Final = 16 * 1024

_TEXTS: Final = (
    *("start", "parent_start", "boot_id", "pid_namespace"),
    *("session", "workspace", "app", "logs"),
)


@dataclass(frozen=True, kw_only=True)
class ExtensionHost:
    """What an extension host has said of itself."""

    path: Path
    pid: int
    start: str
    parent: int
    parent_start: str
    boot_id: str
    pid_namespace: str
    session: str = ""
    workspace: str = ""
    app: str = ""
    logs: str = ""

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The host of a file; None when the file is gone, or nothing that a host has written."""
        try:
            with path.open("rb") as file:
                told: dict[str, Any] = json.loads(file.read(LARGEST))
            pid, parent = int(told["pid"]), int(told["parent"])
            texts = {name: str(told.get(name) or "") for name in _TEXTS}
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return cls(path=path, pid=pid, parent=parent, **texts)

    def here(self) -> bool:
        """Whether this process can see it: not one of an earlier boot, nor one in a sandbox with
        pids of its own."""
        return self.boot_id == boot_id() and self.pid_namespace == _namespace()

    def open(self) -> int | None:
        """A descriptor that becomes readable when its process ends (pidfd_open(2)); None when it
        has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return None
        if started(self.pid) == self.start:  # the descriptor is of this very process
            return descriptor
        os.close(descriptor)
        return None

    def parent_lives(self) -> bool:
        """Whether the process that had started it, VS Code or its server, is still there."""
        return bool(self.parent_start) and started(self.parent) == self.parent_start


def look(place: Path) -> dict[Path, ExtensionHost]:
    """Every host that has a file."""
    try:
        with os.scandir(place) as entries:
            names = sorted(e.name for e in entries if e.name.endswith(".json") and e.name[0] != ".")
    except OSError:
        return {}
    found = (ExtensionHost.read(place / name) for name in names[:MOST])
    return {host.path: host for host in found if host is not None}


def forget(host: ExtensionHost) -> None:
    """Its end has been told, or is nobody's news."""
    with contextlib.suppress(OSError):
        host.path.unlink(missing_ok=True)


def started(pid: int) -> str:
    """When a process was started, in ticks since the boot (proc(5)); empty when it is gone or has
    ended and waits for its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat[stat.rfind(b")") + 2 :].split()
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def boot_id() -> str:
    """This boot of the machine."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""
