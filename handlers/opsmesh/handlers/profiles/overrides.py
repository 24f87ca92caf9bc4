"""`profile enable` and `disable`: a person's choice that outranks the state in the file.

It lies in the state folder, not in profiles.yaml: a command never rewrites a file that a person
wrote. `profile ls` shows where a state comes from.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import get_args

import structlog

from opsmesh.router import paths
from opsmesh.router.rule import ProfileState

_STATES = get_args(ProfileState)

log = structlog.get_logger()


def path() -> Path:
    """`profiles/state.json` in the state folder; a folder of its own can be watched."""
    return Path(paths.state_dir(), "profiles", "state.json")


def read() -> dict[str, ProfileState]:
    """Profile name to chosen state; a damaged file is named in the log and counts as empty."""
    try:
        found = json.loads(path().read_text())
        return {str(name): state for name, state in found.items() if state in _STATES}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        log.warning("overrides.unreadable", path=str(path()), error=str(error))
        return {}


def write(name: str, state: ProfileState | None) -> None:
    """Choose a profile's state; None goes back to what the file says."""
    states = read()
    if state is None:
        states.pop(name, None)
    else:
        states[name] = state
    paths.private_dir(str(path().parent))
    new = path().with_name(f".{path().name}.{os.getpid()}")
    new.write_text(json.dumps(states, indent=2) + "\n")
    new.replace(path())
