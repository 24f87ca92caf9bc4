"""Which files the packages of a transaction own, read from the package manager's own records.

Nothing is started, and a name that an event gives is compared with names of records, never made
into a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

#: Where the records lie, below the root.
PACMAN: Final = "var/lib/pacman/local"
DPKG: Final = "var/lib/dpkg/info"
#: Bytes of one package's list of files.
MAX_LIST: Final = 32 * 2**20

# pacman: <name>-<version>-<release>
_PACMAN = re.compile(r"(?P<name>.+)-[^-]+-[^-]+")


def changed(payload: Mapping[str, Any]) -> list[str]:
    """Names of the packages that a transaction left installed."""
    found = payload.get("packages")
    names = [
        one["name"]
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and one.get("operation") not in ("remove", "purge")
    ]
    return list(dict.fromkeys(names))


def files(root: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each package that has a record, as paths below the root."""
    wanted = set(names)
    found: dict[str, list[Path]] = {}
    for name, listed in (*_pacman(root, wanted), *_dpkg(root, wanted)):
        found.setdefault(name, []).extend(
            root / line.lstrip("/")
            for line in listed
            if line.strip("/") and not line.endswith("/") and ".." not in line.split("/")
        )
    return found


def _pacman(root: Path, wanted: set[str]) -> Iterator[tuple[str, list[str]]]:
    for folder in _entries(root / PACMAN):
        match = _PACMAN.fullmatch(folder.name)
        if match and match["name"] in wanted:
            text = _text(folder / "files").partition("%FILES%\n")[2].partition("\n\n")[0]
            yield match["name"], text.splitlines()


def _dpkg(root: Path, wanted: set[str]) -> Iterator[tuple[str, list[str]]]:
    for file in _entries(root / DPKG):
        if file.suffix == ".list" and (name := file.stem.partition(":")[0]) in wanted:
            yield name, _text(file).splitlines()


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_LIST).decode(errors="replace")
    except OSError:
        return ""
