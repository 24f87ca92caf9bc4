"""Python and the packages that a run depended on: what this process has imported, and where from.

Nothing is started or imported to find out; `Packages` is for the sender's thread.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Packages that an event names, at most, and bytes of a package's list of files that are looked at.
PACKAGES = 300
RECORD = 2 * 2**20


def python() -> dict[str, Any]:
    """The interpreter, and what makes its runs differ."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "platform": f"{os.uname().sysname} {os.uname().release} {os.uname().machine}",
    }
    if "PYTHONHASHSEED" in os.environ:
        facts["pythonhashseed"] = os.environ["PYTHONHASHSEED"]
    return facts


class Packages:
    """The distributions that imported modules came from, with their versions.

    A module is looked for among the distributions beside it: by its name, and else in their lists
    of files, which are read once a folder and name.
    """

    def __init__(self) -> None:
        self._modules: dict[str, tuple[str, str] | None] = {}
        self._folders: dict[str, list[tuple[str, str, str]]] = {}

    def imported(self) -> dict[str, str]:
        """Names and versions, in the order of names."""
        for name in {name.partition(".")[0] for name in list(sys.modules)}:
            known = name in self._modules or name in sys.stdlib_module_names
            if not known and not name.endswith("_opsmesh"):
                self._modules[name] = self._of(name)
        found = sorted({one for one in self._modules.values() if one is not None})
        return dict(found[:PACKAGES])

    def _of(self, name: str) -> tuple[str, str] | None:
        file = getattr(sys.modules.get(name), "__file__", None) or ""
        if not file:
            paths = list(getattr(sys.modules.get(name), "__path__", ()))
            file = f"{paths[0]}/__init__.py" if paths else ""
        if not file:
            return None
        folder = os.path.dirname(file)  # noqa: PTH120
        if os.path.basename(folder) == name:  # noqa: PTH119
            folder = os.path.dirname(folder)  # noqa: PTH120
        if folder not in self._folders:
            self._folders[folder] = _distributions(folder)
        known = self._folders[folder]
        wanted = _normal(name)
        for distribution, version, _ in known:
            if _normal(distribution) == wanted:
                return wanted, version
        marks = (f"\n{name}/".encode(), f"\n{name}.".encode())
        for distribution, version, info in known:
            record = b"\n" + _read(f"{info}/RECORD")
            if any(mark in record for mark in marks):
                return _normal(distribution), version
        return None


def _distributions(folder: str) -> list[tuple[str, str, str]]:
    found = []
    try:
        entries = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError:
        return []
    for entry in entries:
        name, dash, version = entry[: -len(".dist-info")].partition("-")
        if dash and entry.endswith(".dist-info"):
            found.append((name, version, f"{folder}/{entry}"))
    return found


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(RECORD)
    except OSError:
        return b""


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
