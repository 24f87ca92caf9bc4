"""What a host's profile files say that its handler may read: `auth issue --profiles`."""

from __future__ import annotations

from pathlib import Path

from opsmesh.cli import output
from opsmesh.router.auth.reads import Reads


def reads_of(path: Path, host: str) -> dict[str, Reads]:
    """By consumer, what each profile that `host` runs is shown; also of candidates. Ends the
    command for files that cannot be read, or hold none."""
    from opsmesh.handlers.live.consumers import (
        ACTIVE,
        CANDIDATE,
        consumer_name,
        filter_subjects,
        runs_here,
    )
    from opsmesh.handlers.profiles import candidates
    from opsmesh.handlers.profiles.profile import load_file, load_profiles

    if not path.exists():
        output.fail(f"{path} is not there", code=output.NOT_FOUND)
    sets = {ACTIVE: load_profiles(path) if path.is_dir() else load_file(path)}
    if path.is_dir():
        sets[CANDIDATE] = candidates.load(path)
    errors = [str(error) for found in sets.values() for error in found.errors]
    if errors:
        output.fail("\n".join(errors), hint="opsmesh profile validate says the same")
    reads = {
        consumer_name(profile, host, kind=kind): Reads(
            profile=profile.name, subjects=filter_subjects(profile, host)
        )
        for kind, found in sets.items()
        for profile in found.profiles.values()
        if runs_here(profile, host)
    }
    if not reads:
        output.fail(
            f"no profile in {path} runs on {host}",
            hint="a file like profiles.yaml, or a folder that holds one",
        )
    return reads
