"""The profiles of a first start: something sensible happens before anybody has written a file."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from opsmesh.handlers.profiles.profile import FILE as FILE
from opsmesh.handlers.profiles.profile import FOLDER

#: The line before which it says what is known of this machine.
_BEGIN: Final = "version: 1\n"


def place(config_dir: Path) -> Path | None:
    """Where `write` would write; None where there are profiles already."""
    path = config_dir / FILE
    return None if path.exists() or (config_dir / FOLDER).is_dir() else path


def write(config_dir: Path, *, about: str = "") -> Path | None:
    """Write `profiles.yaml` where there are no profiles at all; its path, or None. `about`:
    comment lines to say more at its head."""
    path = place(config_dir)
    if path is None:
        return None
    config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = files("opsmesh.handlers.profiles").joinpath("starter.yaml").read_text()
    if about:
        text = text.replace(_BEGIN, f"#\n{about}\n{_BEGIN}", 1)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return path
