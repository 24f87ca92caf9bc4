"""Which compositor is alive, and waiting for one.

Each has a folder `$XDG_RUNTIME_DIR/hypr/<commit>_<start>_<random>` with its sockets, and a
`hyprland.lock` that names its process (CCompositor, src/Compositor.cpp at 6ffae9c). A crash leaves
the folder behind, and a restart makes another one, so that the signature in our own environment may
be stale: it only says which one to try first.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsmesh.producers.watch import Watch

#: The socket that tells events (src/ipc/s2/Unix.cpp).
EVENTS: Final = ".socket2.sock"
#: Holds the process id, and then the Wayland socket's name.
LOCK: Final = "hyprland.lock"
#: Seconds between tries after something changed: a socket is there before it can be connected to.
RETRIES: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def runtime_folder() -> Path | None:
    """The folder of all instances; None where there is no runtime directory."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(base, "hypr") if base.startswith("/") else None


@dataclass(frozen=True)
class Joined:
    """A connection to the event socket of the instance in `folder`."""

    folder: Path
    events: socket.socket

    @property
    def signature(self) -> str:
        """The instance's name."""
        return self.folder.name


def wait(root: Path, *, pinned: str = "") -> Joined:
    """Connect to the compositor that is alive; wait for one as long as there is none.

    `pinned`: no other signature will do.
    """
    tries = 0
    while True:
        folders = _folders(root, pinned)
        watched = [path for folder in folders for path in (folder / EVENTS, folder / LOCK)]
        with Watch(root, *watched) as watch:
            for folder in _folders(root, pinned):
                if (events := _connect(folder)) is not None:
                    return Joined(folder, events)
            again = RETRIES[tries] if tries < len(RETRIES) else None
            tries = 0 if watch.wait(again) else tries + 1


def _folders(root: Path, pinned: str) -> Sequence[Path]:
    """Where a compositor may be: our own first, then from the newest on."""
    try:
        folders = [path for path in root.iterdir() if path.is_dir()]
    except OSError:
        return []
    own = pinned or os.environ.get("HYPRLAND_INSTANCE_SIGNATURE", "")
    folders.sort(key=lambda path: (path.name == own, _started(path)), reverse=True)
    return [path for path in folders if not pinned or path.name == pinned]


def _started(folder: Path) -> tuple[int, float]:
    """When it was started: the signature says it in seconds, its folder tells two of one second
    apart."""
    parts = folder.name.split("_")
    try:
        changed = folder.stat().st_mtime
    except OSError:
        changed = 0.0
    start = parts[1] if len(parts) == 3 else ""
    return int(start) if start.isdecimal() else 0, changed


def _connect(folder: Path) -> socket.socket | None:
    if any(_is_gone(pid) for pid in _pid(folder)):
        return None
    events = socket.socket(socket.AF_UNIX)
    events.setblocking(False)  # a full backlog is a compositor that stands still: try again
    try:
        events.connect(str(folder / EVENTS))
    except OSError:
        events.close()
        return None
    events.setblocking(True)
    return events


def _pid(folder: Path) -> Iterator[int]:
    """The instance's process, once the compositor has written it down."""
    try:
        first = (folder / LOCK).read_text(errors="replace").partition("\n")[0]
    except OSError:
        return
    if first.isdecimal() and len(first) < 10:
        yield int(first)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
