"""Whether a producer listens, and having it begin when its tool came after the mesh."""

from __future__ import annotations

import time
from typing import Final

from pydantic import ValidationError
from pydantic_settings import SettingsError

from opsmesh.cli import components
from opsmesh.handlers.errors import ConfigError
from opsmesh.router import running, supervisor_state
from opsmesh.router.settings import Settings

#: Seconds that a producer has to come up after it was asked for, its settling included.
PATIENCE: Final = 10.0
LOOK_EVERY: Final = 0.05


def silent(producer: str | None) -> str | None:
    """Why nothing is heard of a producer; None when it runs, or none is needed."""
    if producer is None:
        return None
    if (mesh := running.mesh()) is None:
        return "no mesh runs: opsmesh up --detach"
    if mesh.containers:
        return f"the mesh runs in containers, which see no tools: opsmesh producer run {producer}"
    found = _status(producer)
    if found is not None and found.state == "running":
        return None
    if reason := _unable(producer):
        return reason
    if found is None:  # its package, or its place in the settings, is newer than the mesh
        return f"the mesh does not know it yet: {mesh.anew}"
    if found.state == "waiting":
        return f"its tool came after the mesh began: opsmesh install {producer} starts it now"
    return f"{found.state}, last: {found.last_exit or 'none'}; {found.see}"


def begin(producer: str | None) -> str | None:
    """Have a producer run that can by now; why it does not, None once it does."""
    why = silent(producer)
    if why is None or producer is None or _unable(producer):
        return why
    if not running.try_again(f"producer:{producer}"):
        return why
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(LOOK_EVERY)
        status = _status(producer)
        if status is not None and status.state == "running":
            return None
    log = status.see if status is not None else "opsmesh status"
    mesh = running.mesh()
    anew = f"; if so: {mesh.anew}" if mesh is not None else ""
    return (
        "the mesh cannot start it, maybe for the PATH or the settings that it began with"
        f"{anew}; {log}"
    )


def _status(producer: str) -> supervisor_state.Status | None:
    state = running.mesh()
    known = state.components if state is not None else []
    return next((one for one in known if one.name == f"producer:{producer}"), None)


def _unable(producer: str) -> str | None:
    try:
        reasons = components.producers(Settings())
    except (ValidationError, SettingsError, ConfigError):
        return "the settings are wrong: opsmesh config validate"
    return reasons.get(producer, "there is no such producer")
