"""The profiles of the configuration folder, as every `opsmesh profile` command finds them."""

from __future__ import annotations

from pathlib import Path

import typer

from opsmesh.cli import output
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, load_profiles
from opsmesh.router import paths
from opsmesh.router.rule import ProfileState
from opsmesh.schemas.nearest import nearest


def load() -> ProfileSet:
    """Every profile, in the state that its file gives it."""
    return load_profiles(Path(paths.config_dir()))


def find(found: ProfileSet, name: str) -> Profile:
    """The profile of this name; ends the command when there is none."""
    if name not in found.profiles:
        stop_at_errors(found)
        near = nearest(name, found.profiles)
        hint = f"did you mean {near}?" if near else "opsmesh profile ls"
        output.fail(f"no profile {name!r}", hint=hint, code=output.NOT_FOUND)
    return found.profiles[name]


def there(path: Path) -> Path:
    """A file or folder that the call names; ends the command where there is none."""
    if not path.exists():
        output.fail(f"{path}: no such file", code=output.NOT_FOUND)
    return path


def state_of(profile: Profile) -> ProfileState:
    """Its state here: a person's choice on this machine, or else what its file says."""
    return overrides.read().get(profile.name, profile.state)


def say_errors(found: ProfileSet) -> None:
    """Every error of the files, to standard error."""
    for error in found.errors:
        output.note(str(error))


def stop_at_errors(found: ProfileSet) -> None:
    """End the command when the files have errors."""
    if found.errors:
        say_errors(found)
        raise typer.Exit(output.FAILED)
