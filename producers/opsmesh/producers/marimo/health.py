"""What the plug-in says of itself: the files that `marimo_opsmesh.health` writes.

They are another process's, of perhaps another version: what is not as expected is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsmesh.router import paths


@dataclass(frozen=True, kw_only=True)
class Health:
    """One kernel or server. `wrong` is empty where the plug-in is well."""

    kind: str
    pid: int
    server_pid: int
    marimo: str
    tested: str
    time: str
    wrong: str

    @property
    def known(self) -> bool:
        """Whether the plug-in was tested with this marimo."""
        return self.marimo.startswith(f"{self.tested}.")


def newest() -> list[Health]:
    """The newest kernel that had the plug-in, and the newest server."""
    folder = Path(paths.state_dir(), "marimo")
    return [one for kind in ("kernel", "server") if (one := _read(folder / f"{kind}.json"))]


def live() -> list[Health]:
    """Kernels and servers that have it now."""
    found = []
    for path in Path(paths.runtime_dir(), "marimo").glob("[0-9]*.json"):
        one = _read(path)
        if one is not None and Path(f"/proc/{one.pid}").exists():
            found.append(one)
    return found


def _read(path: Path) -> Health | None:
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        wrong = [str(told[key]) for key in ("problem", "first_failure") if told.get(key)]
        if more := int(told.get("failures") or 0):
            wrong.append(f"{more} failures of the plug-in")
        return Health(
            kind=str(told["kind"]),
            pid=int(told["pid"]),
            server_pid=int(told["server_pid"]),
            marimo=str(told["marimo"]),
            tested=str(told["tested"]),
            time=str(told["time"]),
            wrong="; ".join(" ".join(one.split()) for one in wrong),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
