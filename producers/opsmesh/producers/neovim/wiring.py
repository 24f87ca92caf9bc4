"""Where Neovim finds our plugin: a package `opsmesh` that starts by itself, in its data folder.

`:help packages`, `:help standard-path`: `$XDG_DATA_HOME/$NVIM_APPNAME/site` is in `packpath`, and
what lies below `pack/*/start/` is loaded at every start.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from opsmesh.producers.wiring import TOKEN, OwnFile, Piece, Probe

#: What of this folder is the plugin.
PARTS: Final = ("plugin", "lua", "doc")
#: The file that says which program wrote the plugin: it may be on nobody's PATH.
INSTALLED: Final = "lua/opsmesh/installed.lua"


class Neovim:
    """The plugin."""

    name = "neovim"
    description = "Neovim: saves, errors of language servers, formatting and tests that fail"
    topics: Sequence[str] = (
        "editor.save",
        "editor.lsp.diagnostic.error",
        "editor.lsp.diagnostic.cleared",
        "editor.format.failed",
        "editor.test.failed",
    )
    producer: str | None = None

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        return None if shutil.which("nvim") else "nvim is not on PATH"

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        root = package()
        made = [OwnFile(path=root / name, text=text) for name, text in sorted(files().items())]
        return [*made, OwnFile(path=root / INSTALLED, text=_installed())]

    def probes(self) -> Sequence[Probe]:
        """See `wiring.Probed`: a file of that name is saved, and removed again."""
        path = f"{tempfile.gettempdir()}/{TOKEN}"
        return [
            Probe(
                label="nvim",
                argv=["nvim", "-n", "-i", "NONE"],
                typed=f"\x1b:silent! write! {path}|call delete('{path}')\r",
                topic="editor.save",
            )
        ]

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return (
            "start Neovim anew, and look at :checkhealth opsmesh; with lazy.nvim, which loads no "
            f"packages, add the spec {{ dir = '{package()}', lazy = false }}"
        )


def package() -> Path:
    """The plugin's folder for this user, of the Neovim that NVIM_APPNAME names."""
    base = os.environ.get("XDG_DATA_HOME", "")
    data = Path(base) if base.startswith("/") else Path.home() / ".local/share"
    name = os.environ.get("NVIM_APPNAME") or "nvim"
    return data / name / "site/pack/opsmesh/start/opsmesh"


def files() -> dict[str, str]:
    """The plugin: path in its folder, and text."""
    here = resources.files(__package__)
    found: dict[str, str] = {}
    for part in PARTS:
        _walk(here.joinpath(part), part, found)
    return found


def _walk(folder: Traversable, name: str, found: dict[str, str]) -> None:
    for entry in folder.iterdir():
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            _walk(entry, path, found)
        else:
            found[path] = entry.read_text("utf-8")


def _installed() -> str:
    program = Path(sys.executable).with_name("opsmesh")
    # a JSON string is a Lua string where only what is ASCII stands in it as it is
    quoted = json.dumps(str(program), ensure_ascii=False)
    return f"-- The opsmesh that wrote this plugin.\n\nreturn {{ command = {quoted} }}\n"
