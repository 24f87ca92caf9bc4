"""yadm's hooks: a pull and a bootstrap tell how they ended; no watcher sees one that failed.

chezmoi's hooks would stand in the user's own file, run under `--dry-run` too and know no exit code;
stow and git have none for it: `opsmesh dotfiles apply -- CMD` tells of those.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from opsmesh.producers.dotfiles.producer import COMPLETED, FAILED
from opsmesh.producers.wiring import OwnFile, Piece

#: yadm runs the executable of this name in its folder of hooks.
HOOKS: Final = ("post_pull", "post_bootstrap")
#: In a hook of ours, and in no other.
MARK: Final = "opsmesh install dotfiles"


class DotfilesWiring:
    """Hooks of yadm, where the user has none of that name."""

    name = "dotfiles"
    description = "yadm: hooks that tell how a pull and a bootstrap ended"
    topics: Sequence[str] = (COMPLETED, FAILED)
    producer = None

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if shutil.which("yadm") is None:
            return (
                "yadm is not installed; chezmoi, stow and git need nothing: "
                "opsmesh dotfiles apply -- CMD"
            )
        return None

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        hook = files("opsmesh.producers.dotfiles").joinpath("hooks", "yadm_hook").read_text("utf-8")
        return [
            OwnFile(path=path, text=hook, mode=0o755) for path in _hooks() if not _is_theirs(path)
        ]

    def after(self) -> str:
        """See `wiring.Wiring`."""
        theirs = [str(path) for path in _hooks() if _is_theirs(path)]
        if not theirs:
            return ""
        return f"left alone, for it is yours: {', '.join(theirs)} (docs/producers/dotfiles.md)"


def _hooks() -> list[Path]:
    told = os.environ.get("XDG_CONFIG_HOME", "")
    config = Path(told) if told.startswith("/") else Path.home() / ".config"
    return [config / "yadm/hooks" / name for name in HOOKS]


def _is_theirs(path: Path) -> bool:
    try:
        return MARK not in path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return False
    except OSError:
        return True
