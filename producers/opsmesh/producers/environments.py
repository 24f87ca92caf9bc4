"""A project's virtual environment, and the programs in it: the ones that its people run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

#: Where an environment lies in its project.
NAMES: Final = (".venv", "venv")


def environment(folder: Path) -> Path | None:
    """The environment of the project that `folder` is in: the nearest one up to the repository's
    root."""
    for place in (folder, *folder.parents):
        for name in NAMES:
            if (place / name / "pyvenv.cfg").is_file():
                return place / name
        if (place / ".git").exists():
            break
    return None


def program(name: str, folder: Path, env: Mapping[str, str] = os.environ) -> Path | None:
    """A program as somebody in `folder` would get it: the project's own, that of the environment
    which is activated, the one in PATH, or else the one beside our interpreter."""
    for place in _folders(folder, env):
        if os.access(found := place / name, os.X_OK):
            return found
    if in_path := shutil.which(name, path=env.get("PATH")):
        return Path(in_path)
    beside = Path(sys.executable).with_name(name)
    return beside if os.access(beside, os.X_OK) else None


def _folders(folder: Path, env: Mapping[str, str]) -> Iterator[Path]:
    if own := environment(folder):
        yield own / "bin"
    if active := env.get("VIRTUAL_ENV"):
        yield Path(active, "bin")
