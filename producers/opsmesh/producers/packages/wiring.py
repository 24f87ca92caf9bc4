"""The package managers' half: an optional hook that touches a file when a transaction has ended.

The logs tell everything by themselves. The hook is for where inotify cannot see them change, like a
log on a network's file system. It never fails a transaction, and never waits.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opsmesh.producers.packages.producer import KICK, TRANSACTION
from opsmesh.producers.wiring import OwnFile, Piece

#: Always succeeds, and has nothing to say. `true`, for `:` is a special builtin: where it cannot
#: write, it ends the shell.
_TOUCH: Final = f"{{ mkdir -p {KICK.parent} && true > {KICK}; }} 2>/dev/null || true"
#: alpm-hooks(5); it runs in the root that pacman works on.
_PACMAN: Final = f"""\
# Written by `opsmesh install pacman`: tells opsmesh that a transaction has ended.
[Trigger]
Operation = Install
Operation = Upgrade
Operation = Remove
Type = Package
Target = *

[Action]
Description = Telling opsmesh...
When = PostTransaction
Exec = /bin/sh -c "{_TOUCH}"
"""
#: apt.conf(5). A hook that fails makes apt fail: this one cannot.
_APT: Final = f"""\
// Written by `opsmesh install apt`: tells opsmesh that dpkg has ended.
DPkg::Post-Invoke {{ "{_TOUCH}"; }};
"""


class _Hook:
    topics: Sequence[str] = (TRANSACTION,)
    producer: str | None = "packages"
    name: str
    program: str

    @property
    def description(self) -> str:
        """See `wiring.Wiring`."""
        return f"{self.name}: an optional kick where its log cannot be watched"

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        return None if shutil.which(self.program) else f"{self.program} is not on PATH"

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return ""


class Pacman(_Hook):
    """See `wiring.Wiring`."""

    name = program = "pacman"

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        return (OwnFile(path=Path("/etc/pacman.d/hooks/opsmesh.hook"), text=_PACMAN, root=True),)


class Apt(_Hook):
    """See `wiring.Wiring`."""

    name, program = "apt", "apt-get"

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        return (OwnFile(path=Path("/etc/apt/apt.conf.d/99opsmesh"), text=_APT, root=True),)
