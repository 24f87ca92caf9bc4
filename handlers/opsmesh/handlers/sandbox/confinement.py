"""What a profile says that a program may reach, and what every sandbox refuses whoever asks.

The one rule: no path comes from an event. What a person wrote is resolved on this host, and a path
that would give the sandbox away (the root, a home, the mesh's own files) is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from opsmesh.handlers.errors import Unstartable
from opsmesh.router import paths

Kind = Literal["none", "bwrap", "systemd"]

#: What is the sandbox's own to give: another one in its place would be none.
_SYSTEM: Final = ("/", "/proc", "/sys", "/dev", "/run", "/tmp", "/usr", "/etc", "/boot")  # noqa: S108


@dataclass(frozen=True, kw_only=True)
class Confinement:
    """`memory` in bytes for all processes together, `cpu` in percent of one processor, `tasks`:
    processes and threads."""

    kind: Kind = "none"
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    network: bool = False
    memory: int | None = None
    cpu: float | None = None
    tasks: int | None = None

    @property
    def limited(self) -> bool:
        """Whether anything is limited that a control group counts."""
        return not (self.memory is None and self.cpu is None and self.tasks is None)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The paths that a sandbox lets through, resolved."""

    read: tuple[Path, ...]
    write: tuple[Path, ...]

    def has(self, path: Path) -> bool:
        """Whether a path lies in one of them."""
        return any(path.is_relative_to(one) for one in (*self.read, *self.write))


def shown(confinement: Confinement) -> Shown:
    """What is let through on this host; Unstartable for what must not be, or is not there."""
    return Shown(
        read=tuple(_checked(text, "read") for text in confinement.read),
        write=tuple(_checked(text, "write") for text in confinement.write),
    )


def _checked(text: str, key: str) -> Path:
    try:
        asked = Path(text).expanduser()
    except RuntimeError as error:  # ~ of a user that there is not
        raise Unstartable((), f"{key}: {text!r}: {error}") from None
    if not asked.is_absolute():
        raise Unstartable((), f"{key}: {text!r} is not an absolute path")
    try:
        path = asked.resolve(strict=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unstartable((), f"{key}: {text!r}: {reason}") from None
    if str(path) in _SYSTEM or Path.home().resolve().is_relative_to(path):
        raise Unstartable((), f"{key}: {text!r} is too much: no sandbox would be left")
    for own in _own():
        if own.is_relative_to(path) or path.is_relative_to(own):
            raise Unstartable(
                (), f"{key}: {text!r} holds, or belongs to, what opsmesh itself keeps"
            )
    return path


def _own() -> Sequence[Path]:
    return [Path(os.path.realpath(one)) for one in (paths.config_dir(), paths.state_dir())]
