"""Programs that steps start and that are not here. The file may be written for another host, so
that one is a warning; with `strict` it is an error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opsmesh.handlers.lint.finding import Finding, Severity
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.process import minimal_environment
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.yamlfile import Where


def lint(
    profile: Profile, places: Places, *, path: str | None = None, strict: bool = False
) -> Iterator[Finding]:
    """Programs that are not found in `path`, by default the PATH that an action has."""
    severity: Severity = "error" if strict else "warning"
    inherited = minimal_environment().get("PATH", os.defpath) if path is None else path
    for where, argv, env, cwd in _started(profile, places):
        program = argv[0]
        if "${{" in program:
            continue
        search = env.get("PATH", inherited)
        if "${{" in search or ("/" in program and "${{" in (cwd or "")):
            continue
        message, hint = _wanting(program, search, cwd)
        if message:
            yield places.finding(severity, where, message, hint=hint)


def _wanting(program: str, path: str, cwd: str | None) -> tuple[str, str]:
    if program.startswith("~"):
        return f"program {program!r} is not found", "no shell reads the ~; write the whole path"
    if "/" not in program:
        if shutil.which(program, path=path):
            return "", ""
        return (
            f"program {program!r} is not in PATH",
            "install it, write its whole path, or let run_on name the host that has it",
        )
    file = Path(program)
    if not file.is_absolute():
        if cwd is None:
            hint = "a step runs in a folder of its own; write the whole path, or give it a cwd"
            return f"program {program!r} is not found", hint
        file = Path(cwd).expanduser() / file
    if not file.exists():
        return f"program {program!r} is not there", "install it, or correct its path"
    if not (file.is_file() and os.access(file, os.X_OK)):
        return f"program {program!r} is not executable", f"chmod +x {file}"
    return "", ""


def _started(
    profile: Profile, places: Places
) -> Iterator[tuple[Where, Sequence[str], Mapping[str, str], str | None]]:
    """The argument lists of a profile, with what changes where their program is looked for."""
    for number, step in enumerate(profile.steps):
        spec: Mapping[str, Any] = step.action.describe()
        base: Where = ("actions", number, step.action.key)
        if step.action.key == "command":
            where: Where = (*base, "argv", 0) if places.exists((*base, "argv")) else (*base, 0)
            yield where, spec["argv"], spec["env"], spec["cwd"]
        elif step.action.key == "collect":
            items: Where = (*base, "items") if places.exists((*base, "items")) else base
            for index, item in enumerate(spec["items"]):
                if "command" in item:
                    where = (*places.listed(items, index), "command", 0)
                    yield where, item["command"], {}, None
