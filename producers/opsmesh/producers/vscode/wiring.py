"""VS Code's half: the extension, as a .vsix in a folder of ours, and installed by each editor.

An editor keeps what it unpacks to itself, so its own command installs and removes the extension.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opsmesh.producers.vscode import places, vsix
from opsmesh.producers.wiring import OwnFile, Piece

#: Editors of the family, by their commands; in a remote window's terminal `code` is the server's.
PROGRAMS: Final = (
    *("code", "code-insiders", "code-oss", "codium", "vscodium", "code-server"),
    *("cursor", "windsurf"),
)


class VSCodeWiring:
    """See `wiring.Wiring`."""

    name = "vscode"
    description = "VS Code and its kin: an extension for tasks, tests, saves, profiles, approvals"
    topics: Sequence[str] = (
        "editor.task.failed",
        "editor.test.failed",
        "editor.save",
        "editor.extension.crashed",
    )
    producer: str | None = "vscode"

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if programs():
            return None
        return f"none of {', '.join(PROGRAMS)} is on PATH"

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        command = Path(sys.executable).with_name("opsmesh")
        return [
            OwnFile(path=places.vsix(), data=vsix.pack()),
            OwnFile(path=places.command(), text=f"{command}\n"),
        ]

    def reload(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        return []

    def switch_on(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        file = str(places.vsix())
        return [[program, "--install-extension", file, "--force"] for program in programs()]

    def switch_off(self) -> Sequence[Sequence[str]]:
        """See `wiring.Switched`."""
        return [[program, "--uninstall-extension", vsix.IDENTITY] for program in programs()]

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return "windows that are open: run Developer: Reload Window; then OpsMesh: Status"


def programs() -> list[str]:
    """The editors that are here."""
    return [name for name in PROGRAMS if shutil.which(name)]
