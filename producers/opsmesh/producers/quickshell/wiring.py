"""Where Quickshell finds our module: a folder `opsmesh` beside each configuration's shell.qml.

Quickshell takes a configuration from `quickshell/shell.qml`, or else `quickshell/NAME/shell.qml`
(0.3.1, src/launch/command.cpp), and lets `import qs.FOLDER` mean a folder below it; it writes the
`qmldir` of that folder by itself (src/core/scan.cpp). A module outside of it has no name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from opsmesh.producers.wiring import OwnFile, Piece

#: The module and its example.
FILES: Final = ("OpsMesh.qml", "Example.qml")
#: The file that makes a folder a configuration.
SHELL: Final = "shell.qml"


class Quickshell:
    """The QML singleton `OpsMesh`."""

    name = "quickshell"
    description = "Quickshell: QML singleton OpsMesh for actions, runbooks and answers in the bar"
    topics: Sequence[str] = (
        "shell.action.invoked",
        "shell.workflow.triggered",
        "shell.widget.error",
    )
    producer: str | None = None

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if roots():
            return None
        return f"no {SHELL} in {_base()} or a folder in it: make a Quickshell configuration first"

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        return [
            OwnFile(path=root / "opsmesh" / name, text=text(name))
            for root in roots()
            for name in FILES
        ]

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return (
            "write `import qs.opsmesh` in your QML, and use OpsMesh; Quickshell reloads by itself"
        )


def roots() -> list[Path]:
    """The folders of this user's configurations."""
    base = _base()
    if (base / SHELL).is_file():
        return [base]
    return sorted(path.parent for path in base.glob(f"*/{SHELL}") if path.is_file())


def text(name: str) -> str:
    """A file of the module."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _base() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "quickshell"
