"""Candidates: texts of profiles that decide in shadow beside those in force.

Each is a file `candidates/<profile>.yaml` in the configuration folder, of the same form as
profiles.yaml, with the one profile that it is named after.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import yamlfile
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, parse

#: The folder in the configuration folder.
FOLDER: Final = "candidates"


def path(config_dir: Path, name: str) -> Path:
    """Where the candidate of a profile lies."""
    return config_dir / FOLDER / f"{name}.yaml"


def load(config_dir: Path) -> ProfileSet:
    """Every candidate; what is wrong with the files is in `errors`, and never raised."""
    result = ProfileSet()
    for file in sorted((config_dir / FOLDER).glob("*.yaml")):
        if file.name.startswith("."):
            continue
        name = f"{FOLDER}/{file.name}"
        try:
            profile = _one(yamlfile.load(file, name=name), result.errors)
        except ConfigError as error:
            result.errors.append(error)
            continue
        if profile is None:
            continue
        if profile.name != file.stem:
            told = f"holds {profile.name!r}, and is named after {file.stem!r}"
            result.errors.append(ConfigError(name, profile.line, 1, told))
            continue
        result.profiles[profile.name] = profile
    return result


def read(file: Path) -> tuple[Profile | None, list[ConfigError]]:
    """The one profile of a file, wherever it lies; None with what is wrong with it."""
    errors: list[ConfigError] = []
    try:
        profile = _one(yamlfile.load(file), errors)
    except ConfigError as error:
        return None, [error]
    return profile, errors


def put(config_dir: Path, name: str, text: bytes) -> Path:
    """Write the candidate of a profile, whole or not at all, in place of one that is there."""
    file = path(config_dir, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_bytes(text)
    new.replace(file)
    return file


def remove(config_dir: Path, name: str) -> bool:
    """Remove a candidate; False when there is none."""
    try:
        path(config_dir, name).unlink()
    except FileNotFoundError:
        return False
    return True


def _one(document: yamlfile.Document, errors: list[ConfigError]) -> Profile | None:
    found = parse(document)
    errors.extend(found.errors)
    if found.errors:
        return None
    if len(found.profiles) != 1:
        names = ", ".join(found.profiles) or "no profile"
        told = f"holds {names}; a candidate is a file with one profile"
        errors.append(ConfigError(document.file, 1, 1, told))
        return None
    return next(iter(found.profiles.values()))
