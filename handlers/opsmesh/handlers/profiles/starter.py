"""The profiles of a first start: something sensible happens before anybody has written a file."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from opsmesh.handlers.profiles.profile import FILE, FOLDER


def write(config_dir: Path) -> Path | None:
    """Write `profiles.yaml` where there are no profiles at all; its path, or None."""
    path = config_dir / FILE
    if path.exists() or (config_dir / FOLDER).is_dir():
        return None
    config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = files("opsmesh.handlers.profiles").joinpath("starter.yaml").read_text()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path
