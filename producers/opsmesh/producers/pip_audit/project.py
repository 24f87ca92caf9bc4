"""What a project depends on: its lock files, else its requirements, and what is installed for those
that name no version.

Nothing of the project is run, and nothing is resolved: what is written down nowhere is unknown.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from opsmesh.producers import environments
from opsmesh.producers.pip_audit import locks
from opsmesh.producers.pip_audit.locks import Named, Pin, canonical

#: Lock files of uv, poetry, pdm, and of PEP 751.
LOCKS: Final = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "pylock.*.toml")
REQUIREMENTS: Final = ("requirements*.txt", "requirements/*.txt")
PYPROJECT: Final = "pyproject.toml"
#: Bytes of a file that is read.
MOST_BYTES: Final = 32 << 20
#: Files that include each other.
MOST_FILES: Final = 50
LOOSE: Final = "no version is written down, and none is installed in the project's environment"


@dataclass(kw_only=True)
class Dependencies:
    """`pins`: each with the file that names it; `unknown`: why a package cannot be judged."""

    pins: dict[Pin, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    #: Where they were found; none: nothing says what the project depends on.
    sources: list[str] = field(default_factory=list)


def files(folder: Path) -> list[Path]:
    """The files that say what the project depends on."""
    patterns = (*LOCKS, *REQUIREMENTS, PYPROJECT)
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def site_packages(folder: Path) -> Path | None:
    """Where the project's environment has what is installed."""
    home = environments.environment(folder)
    found = sorted(home.glob("lib/python3*/site-packages")) if home else []
    return found[-1] if found else None


def read(folder: Path) -> Dependencies:
    """What is written down, and where that leaves it open, what is installed."""
    made, loose = Dependencies(), dict[str, str]()
    found = files(folder)
    locked = [path for path in found if any(path.match(pattern) for pattern in LOCKS)]
    for path in locked:
        _add(made, loose, path, folder, _parsed(made, path, folder))
    for path in found:
        if path not in locked and path.name != PYPROJECT:
            for one, named in _requirements(made, path, folder):
                _add(made, loose, one, folder, named)
    if not locked and folder / PYPROJECT in found:
        _add(made, loose, folder / PYPROJECT, folder, _parsed(made, folder / PYPROJECT, folder))
    known = {pin.name for pin in made.pins}
    loose = {name: source for name, source in loose.items() if name not in known}
    place = site_packages(folder)
    if place is not None and (loose or not made.sources):
        _add_installed(made, place, folder)
        known = {pin.name for pin in made.pins}
    for name in loose:
        if name not in known:
            made.unknown.setdefault(name, LOOSE)
    return made


def state(folder: Path) -> str:
    """What is another when `read` may give something else."""
    place = site_packages(folder)
    paths = [*files(folder), *([place] if place else [])]
    parts = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        parts.append(f"{path.name}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}")
    return " ".join(parts)


def _parsed(made: Dependencies, path: Path, folder: Path) -> Named:
    """One file's; a file that cannot be read is itself what is unknown."""
    parse = {PYPROJECT: locks.of_pyproject}.get(
        path.name, locks.of_lock if path.suffix in (".toml", ".lock") else locks.of_requirements
    )
    try:
        return parse(_text(path))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        made.unknown[_shown(path, folder)] = f"cannot be read: {why[:200]}"
        return Named()


def _text(path: Path) -> str:
    """What includes a file may be a stranger's, and name a device or a pipe."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no plain file")
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    return data.decode()


def _requirements(made: Dependencies, path: Path, folder: Path) -> Iterator[tuple[Path, Named]]:
    """A requirements file, and those that it includes. What it constrains to one version is pinned
    where it is named, too."""
    waiting, seen = [path], dict[Path, Named]()
    while waiting and len(seen) < MOST_FILES:
        one = waiting.pop()
        if one in seen:
            continue
        named = seen[one] = _parsed(made, one, folder)
        waiting += [one.parent / other for other in named.include]
        for other in named.constrain:
            bounds = {pin.name: pin for pin in _parsed(made, one.parent / other, folder).pins}
            named.pins += [bounds[name] for name in named.loose if name in bounds]
    yield from seen.items()


def _add(made: Dependencies, loose: dict[str, str], path: Path, folder: Path, named: Named) -> None:
    shown = _shown(path, folder)
    if shown not in made.unknown:
        made.sources.append(shown)
    for pin in named.pins:
        made.pins.setdefault(pin, shown)
    for name in named.loose:
        loose.setdefault(name, shown)
    made.unknown.update(named.unknown)


def _add_installed(made: Dependencies, place: Path, folder: Path) -> None:
    """What an environment has; packages whose code is the project's own are left out."""
    shown = _shown(place, folder)
    made.sources.append(shown)
    named = Named()
    for info in sorted(place.glob("*.dist-info")):
        name, dash, version = info.name.removesuffix(".dist-info").rpartition("-")
        if not dash:
            continue
        url = _direct(info)
        if url.startswith("file://"):
            if not Path(url.removeprefix("file://")).is_relative_to(folder):
                named.unknown[canonical(name)] = "installed from another folder"
        elif url:
            named.unknown[canonical(name)] = "installed from a URL, not from an index"
        else:
            named.pin(name, version)
    for pin in named.pins:
        made.pins.setdefault(pin, shown)
    made.unknown.update(named.unknown)


def _direct(info: Path) -> str:
    """Where a distribution came from if not from an index (PEP 610)."""
    try:
        return str(json.loads((info / "direct_url.json").read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
