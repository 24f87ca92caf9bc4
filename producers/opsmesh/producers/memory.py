"""What a producer remembers between two lives: one JSON file, replaced as a whole.

It is written only after what it stands for has been emitted: a crash in between tells a fact twice,
and the fact's derived id makes one event of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opsmesh.producers.host import say, write_atomically
from opsmesh.router import paths


class Memory:
    """The memory of the producer `name`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.path = Path(paths.state_dir(), "producers", name, "memory.json")

    def load(self) -> dict[str, Any]:
        """What was stored last; empty before the first time, and when the file cannot be read."""
        try:
            return dict(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            say(f"{self._name}: {self.path} is unreadable, some facts may be told twice: {error}")
            return {}

    def store(self, remembered: Mapping[str, Any]) -> None:
        """Keep it, so that it survives a crash of the machine. OSError when the disk is full."""
        write_atomically(self.path, json.dumps(remembered).encode())
