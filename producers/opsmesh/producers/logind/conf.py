"""What the user's hypridle.conf does already when the session is locked.

In hyprlang the last assignment of a value wins (CConfig::configSetValueSafe, src/config.cpp at
0901175): a second `on_lock_cmd` replaces the first one. So ours must run the user's own, too, and
to that end it is copied as it is written: variables mean the same in a file that is sourced.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: The values of `general` that are of interest.
WANTED: Final = ("on_lock_cmd", "on_unlock_cmd")


def config_home() -> Path:
    """Where hypridle looks for its configuration first."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return Path(base if base.startswith("/") else Path.home() / ".config", "hypr")


def commands(path: Path, *, without: Path) -> dict[str, str]:
    """The last assignment of each wanted value, in this file and those that it sources, as written;
    `without` is left out. Files that cannot be read have none."""
    return dict(_assignments(path, {without.resolve()}))


def _assignments(path: Path, seen: set[Path]) -> Iterator[tuple[str, str]]:
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return
    categories: list[str] = []
    for line in _joined(lines):
        name, equals, value = (part.strip() for part in _uncommented(line).partition("="))
        if not equals and name.endswith("{"):
            categories.append(name.removesuffix("{").strip())
        elif not equals and name == "}":
            categories = categories[:-1]
        elif name == "source" and not categories:
            pattern = os.path.join(path.parent, os.path.expanduser(value))  # noqa: PTH111, PTH118
            for sourced in sorted(glob.glob(pattern)):  # noqa: PTH207 (an absolute pattern)
                yield from _assignments(Path(sourced), seen)
        elif (full := ":".join([*categories, name])).startswith("general:"):
            key = full.removeprefix("general:")
            if key in WANTED:
                yield key, value


def _uncommented(line: str) -> str:
    """The line up to its comment; `##` is a `#` that begins none, and stays as it is."""
    if line.lstrip().startswith("#"):
        return ""
    at = line.find("#")
    while at != -1:
        if line[at + 1 : at + 2] != "#":
            return line[:at]
        at = line.find("#", at + 2)
    return line


def _joined(lines: list[str]) -> Iterator[str]:
    """Lines, with those that a backslash continues put together."""
    begun = ""
    for line in lines:
        if line.endswith("\\"):
            begun += line[:-1]
            continue
        yield begun + line
        begun = ""
