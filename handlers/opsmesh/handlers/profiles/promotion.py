"""A candidate's text takes the place of the profile in force, in the file where that one is.

All is checked before anything is written: the file must still hold the same profiles, and all but
this one unchanged. What was there is kept beside it as `<file>.bak`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from opsmesh.handlers.errors import ConfigError
from opsmesh.handlers.profiles import candidates, yamlfile
from opsmesh.handlers.profiles import profile as profiles
from opsmesh.handlers.profiles import text as profile_text
from opsmesh.handlers.profiles.profile import Profile

#: What the file of before is called.
BACKUP: Final = ".bak"


def promote(config_dir: Path, candidate: Profile, active: Profile | None) -> Path:
    """Put the candidate in force, and remove it as a candidate; the file that was written.

    Raises ConfigError, and leaves every file as it was, when the result would not be right.
    """
    source = candidates.path(config_dir, candidate.name)
    if active is None:
        target = config_dir / profiles.FOLDER / f"{candidate.name}.yaml"
        if target.exists():
            raise ConfigError(
                f"{profiles.FOLDER}/{target.name}", 1, 1, "exists, and holds other profiles"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, source.read_bytes())
    else:
        # a link to a file elsewhere stays a link
        target = (config_dir / active.file).resolve()
        before = target.read_bytes()
        after = _exchanged(before, source.read_text("utf-8-sig"), candidate, active)
        backup = target.with_name(target.name + BACKUP)
        shutil.copy2(target, backup)
        _write(target, after, unless_changed=before, name=active.file)
    candidates.remove(config_dir, candidate.name)
    return target


def _exchanged(before: bytes, text: str, candidate: Profile, active: Profile) -> bytes:
    other_file = f"{candidates.FOLDER}/{candidate.name}.yaml"
    after = profile_text.exchange(
        before.decode(), text, candidate.name, file=active.file, other_file=other_file
    ).encode()
    old = profiles.parse(yamlfile.parse(before, file=active.file))
    new = profiles.parse(yamlfile.parse(after, file=active.file))
    for error in (*old.errors, *new.errors):
        raise error
    wanted = {**old.profiles, candidate.name: candidate}
    for name in wanted.keys() | new.profiles.keys():
        if wanted.get(name) != new.profiles.get(name):
            raise ConfigError(
                active.file,
                active.line,
                1,
                f"with the candidate's lines in place, {name!r} would not be what it should be",
                hint="put them there by hand",
            )
    return after


def _write(
    target: Path, data: bytes, *, unless_changed: bytes | None = None, name: str = ""
) -> None:
    new = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if unless_changed is not None:
            shutil.copymode(target, new)
            if target.read_bytes() != unless_changed:
                raise ConfigError(name, 1, 1, "has changed in this moment", hint="try again")
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
