"""What was answered with no: nothing is asked twice.

Kept in the state folder, and only here; `init --ask-again` forgets it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from opsmesh.producers.host import write_atomically
from opsmesh.router import paths


def _file() -> Path:
    return Path(paths.state_dir(), "init.json")


def declined() -> set[str]:
    """The tools that somebody did not want wired."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        return {str(name) for name in json.loads(_file().read_bytes()).get("declined", [])}
    return set()


def decline(names: Iterable[str]) -> None:
    """Remember these too."""
    if wanted := {*names} - (known := declined()):
        write_atomically(_file(), json.dumps({"declined": sorted(wanted | known)}).encode())


def forget() -> None:
    """Ask everything again."""
    _file().unlink(missing_ok=True)
