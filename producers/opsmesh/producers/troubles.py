"""What a producer cannot do for now: said in its log once, and kept for `opsmesh doctor` until it
can again.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Final

from opsmesh.producers.host import say, write_atomically
from opsmesh.router import paths

#: Characters of a trouble that are kept.
MOST_TEXT: Final = 500


class Troubles:
    """Those of the producer `name` in this life, by what they are about."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: dict[str, str] = {}
        self._store()

    def note(self, about: str, text: str) -> None:
        """Something does not go; the same text again is not said again."""
        if self._found.get(about) != text:
            self._found[about] = text
            say(f"{self._name}: {text}")
            self._store()

    def over(self, about: str) -> None:
        """It goes again."""
        if self._found.pop(about, None) is not None:
            say(f"{self._name}: {about}: it goes again")
            self._store()

    def _store(self) -> None:
        """A disk that is full keeps nobody from working."""
        kept = {about: text[:MOST_TEXT] for about, text in self._found.items()}
        with contextlib.suppress(OSError):
            if kept:
                write_atomically(_path(self._name), json.dumps(kept).encode())
            else:
                _path(self._name).unlink(missing_ok=True)


def read(name: str) -> dict[str, str]:
    """What the producer `name` cannot do now, by what it is about."""
    try:
        found = json.loads(_path(name).read_bytes())
        return {str(about): str(text) for about, text in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _path(name: str) -> Path:
    return Path(paths.state_dir(), "producers", name, "troubles.json")
