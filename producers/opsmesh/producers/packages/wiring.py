"""The package managers' half: an optional hook that touches a file when a transaction has ended.

The logs tell everything by themselves. The hook is for where inotify cannot see them change, like a
log on a network's file system. It never fails a transaction, and never waits.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from opsmesh.producers.packages.producer import TRANSACTION, kicks
from opsmesh.producers.wiring import OwnFile, Piece

#: alpm-hooks(5); it runs in the package manager's root.
_PACMAN = """\
# Written by `opsmesh install pacman`: tells opsmesh that a transaction has ended.
[Trigger]
Operation = Install
Operation = Upgrade
Operation = Remove
Type = Package
Target = *

[Action]
Description = Telling opsmesh ...
When = PostTransaction
Exec = /bin/sh -c {command}
"""
#: apt.conf(5). A hook that fails makes apt fail: this one cannot.
_APT = """\
// Written by `opsmesh install apt`: tells opsmesh that dpkg has ended.
DPkg::Post-Invoke {{ {command}; }};
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
        command = '"' + _touch("pacman").replace('"', '\\"') + '"'
        path = Path("/etc/pacman.d/hooks/opsmesh.hook")
        return (OwnFile(path=path, text=_PACMAN.format(command=command), root=True),)


class Apt(_Hook):
    """See `wiring.Wiring`."""

    name, program = "apt", "apt-get"

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        command = '"' + _touch("apt").replace('"', '\\"') + '"'
        path = Path("/etc/apt/apt.conf.d/99opsmesh")
        return (OwnFile(path=path, text=_APT.format(command=command), root=True),)


def _touch(manager: str) -> str:
    """A command that does nothing where the folder is not there, and always succeeds."""
    folder, file = shlex.quote(str(_folder())), shlex.quote(str(_folder() / manager))
    return f"test -d {folder} && touch {file} 2>/dev/null || true"


def _folder() -> Path:
    """The folder of the user who asks: under sudo that is not root's."""
    user = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and user.isdigit():
        return Path(f"/run/user/{user}/opsmesh/packages")
    return kicks()
