"""Whether an editor runs the tests: then each failure is told as the editor's, too."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def of_environment(env: Mapping[str, str] = os.environ) -> str | None:
    """The editor that this process runs below, by the variables that it leaves there.

    Neovim first: in a terminal of VS Code it inherits the other's. Then what an editor's plug-in
    of ours exports, `editor:instance`; then VS Code's own, which its terminals, tasks and test
    explorer have.
    """
    if env.get("NVIM"):
        return "neovim"
    if said := env.get("OPSMESH_EDITOR_SESSION", "").partition(":")[0]:
        return said
    if env.get("TERM_PROGRAM") == "vscode" or env.get("VSCODE_PID"):
        return "vscode"
    return None


def payload(told: Mapping[str, Any], editor: str) -> dict[str, Any]:
    """What `editor.test.failed` says of what `python.test.failed` tells."""
    same = ("nodeid", "message", "path", "duration_ms")
    return {
        **{name: told[name] for name in same if name in told},
        "line": told.get("lineno"),
        "output_tail": told.get("longrepr"),
        "editor": editor,
    }
