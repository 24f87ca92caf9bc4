"""The checkout as the guards see it: its roots, and the files that are committed or would be."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

#: The checkout's top folder.
TOP = Path(__file__).resolve().parents[2]

#: The roots of the namespace package `opsmesh`, lowest layer first.
ROOTS = ("schemas", "router", "handlers", "producers", "cli")

#: Folders of the packages that go into other people's environments, with what is imported there.
SOURCES = ("packages/marimo-opsmesh/src", "packages/pytest-opsmesh/src")


def pyproject(folder: Path = TOP) -> dict[str, Any]:
    """pyproject.toml, read."""
    with (folder / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def files(*suffixes: str) -> list[Path]:
    """Files that are committed or would be, by suffix; all without one.

    Without git, as in an unpacked sdist, every file outside hidden folders.
    """
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 0:
        found = [TOP / name for name in listing.stdout.split("\0") if name]
    else:
        found = [
            path
            for path in TOP.rglob("*")
            if not any(
                part.startswith(".") or part == "__pycache__"
                for part in path.relative_to(TOP).parts
            )
        ]
    wanted = [path for path in found if not suffixes or path.suffix in suffixes]
    return sorted({path for path in wanted if path.is_file()})
