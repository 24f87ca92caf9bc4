"""Where things lie that the extension, its installation and the producer share."""

from __future__ import annotations

import os
from pathlib import Path

from opsmesh.router import paths


def hosts() -> Path:
    """Where extension hosts say that they run (packages/vscode-opsmesh/src/paths.js)."""
    return Path(paths.state_dir(), "producers", "vscode", "hosts")


def vsix() -> Path:
    """The packed extension that was installed."""
    return _data() / "opsmesh.vsix"


def command() -> Path:
    """Says to the extension which opsmesh that was."""
    return _data() / "command"


def _data() -> Path:
    told = os.environ.get("XDG_DATA_HOME", "")
    data = Path(told) if told.startswith("/") else Path.home() / ".local/share"
    return data / "opsmesh/vscode"
