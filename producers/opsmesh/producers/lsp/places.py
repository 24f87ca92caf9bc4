"""Names: a file of a document's URI, an editor's token, a server's name. Pure."""

from __future__ import annotations

import os.path
import re
from typing import Final
from urllib.parse import unquote, urlsplit

#: Editors whose own name is not what events call them.
_EDITORS: Final = {
    "visual studio code": "vscode",
    "visual studio code - insiders": "vscode",
    "vscodium": "vscode",
    "code - oss": "vscode",
    "code-server": "vscode",
    "nvim": "neovim",
}


def path_of(uri: str) -> str | None:
    """The file of a URI; None for what is none of this machine: a buffer without a name, a cell."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    path = unquote(parts.path, errors="surrogateescape")
    return path if path.startswith("/") and "\x00" not in path else None


def editor_token(name: str) -> str:
    """What events call the editor that says this of itself (`clientInfo`, LSP 3.17)."""
    lowered = name.strip().lower()
    return _EDITORS.get(lowered) or re.sub(r"[^a-z0-9]+", "-", lowered).strip("-")


def server_name(command: str) -> str:
    """A server's name, when nobody says another: that of its program."""
    return os.path.basename(command) or command  # noqa: PTH119 (text, not a path of ours)
