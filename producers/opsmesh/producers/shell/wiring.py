"""The shells' own half: the hooks, and one line that loads each.

fish reads every file of its conf.d; bash and zsh read one file of the user's, which gets a line
that does nothing once the hook is gone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from opsmesh.producers.shell.producer import FAILED, SHELLS
from opsmesh.producers.wiring import TOKEN, OwnFile, Piece, Probe, SourceLine

#: How each shell is tried: its command line, and what is typed, which must not stay in the user's
#: history. zsh may write down what is typed before it does it: only the line with a space before
#: it can come through then, where HIST_IGNORE_SPACE is not set.
PROBES: Final = {
    "bash": (["bash", "-i"], f"unset HISTFILE; {TOKEN}\n"),
    "zsh": (["zsh", "-i"], f" unset HISTFILE\n{TOKEN}\n"),
    "fish": (["fish", "--private", "-i"], f"{TOKEN}\n"),
}


class ShellWiring:
    """Hooks for those of bash, zsh and fish that are installed."""

    name = "shell"
    description = "bash, zsh, fish: tells commands that fail"
    topics: Sequence[str] = (FAILED,)
    producer: str | None = "shell"

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        return None if _installed() else f"none of {', '.join(SHELLS)} is on PATH"

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        made: list[Piece] = []
        for shell in _installed():
            text = hook(shell)
            if shell == "fish":
                made.append(OwnFile(path=_fish(os.environ), text=text))
                continue
            path = (
                _base(os.environ, "XDG_DATA_HOME", ".local/share")
                / f"opsmesh/shell/opsmesh.{shell}"
            )
            made.append(OwnFile(path=path, text=text))
            made.append(SourceLine(path=_startup(shell, os.environ), line=_load(path)))
        return made

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return "open a new shell: those that run now do not know the hook"

    def probes(self) -> Sequence[Probe]:
        """See `wiring.Probed`: a command that does not exist fails with 127."""
        return [
            Probe(label=shell, argv=PROBES[shell][0], typed=PROBES[shell][1], topic=FAILED)
            for shell in _installed()
        ]


def hook(shell: str) -> str:
    """The hook's text."""
    return resources.files(__package__).joinpath(f"opsmesh.{shell}").read_text("utf-8")


def _installed() -> list[str]:
    return [shell for shell in SHELLS if shutil.which(shell)]


def _base(env: Mapping[str, str], variable: str, fallback: str) -> Path:
    base = env.get(variable, "")
    return Path(base) if base.startswith("/") else Path.home() / fallback


def _fish(env: Mapping[str, str]) -> Path:
    return _base(env, "XDG_CONFIG_HOME", ".config") / "fish/conf.d/opsmesh.fish"


def _startup(shell: str, env: Mapping[str, str]) -> Path:
    """~/.bashrc; for zsh .zshrc in ZDOTDIR, or at home."""
    if shell == "bash":
        return Path.home() / ".bashrc"
    return Path(env.get("ZDOTDIR") or Path.home()) / ".zshrc"


def _load(path: Path) -> str:
    quoted = "'" + str(path).replace("'", "'\\''") + "'"
    return f"if [ -r {quoted} ]; then . {quoted}; fi"
