"""What belongs to a backup: which files of this machine, and the streams in the order of reading.

The order is what makes a backup of a running mesh whole: whatever says how far something has been
read or done is taken before what it is about. After a restore a profile's cursor is behind its
events, never before them; the archive of the evidence ends where the stream goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from opsmesh.handlers.evidence import ids
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.router.topology import (
    A2A,
    BUNDLES_STREAM,
    DECISIONS,
    DLQ,
    EVENTS,
    FIRINGS,
    RUNS,
    TRIGGERS,
    VERSIONS,
    WINDOWS,
)

#: Cursors before the ledger, the ledger before the events; copies for debugging are left out.
STREAMS: Final = (
    f"KV_{WINDOWS}",
    TRIGGERS,
    f"KV_{RUNS}",
    f"KV_{A2A}",
    DLQ,
    DECISIONS,
    FIRINGS,
    VERSIONS,
    BUNDLES_STREAM,
    EVENTS,
)
#: Of them those that hold the newest value of each key.
BUCKETS: Final = (f"KV_{WINDOWS}", f"KV_{RUNS}", f"KV_{A2A}")
#: Those from which nothing is taken but what is too old.
GROWING: Final = (DECISIONS, FIRINGS, VERSIONS, EVENTS)
#: Of the state folder: what people chose, where producers and agents are, what seals were made.
STATE: Final = ("profiles", "producers", "a2a", "keys/pins.json", "keys/evidence.pub")
#: And with `--keys`: what signs, commits and lets others in.
KEYS: Final = ("keys", "redaction.key", "questions.key", "auth")
#: Of the configuration: the credentials of a host that joined a hub, only with `--keys`.
JOINED: Final = "joined"
#: Files of the configuration that are larger are none.
MAX_CONFIG: Final = 16 * 2**20

#: The parts that are files.
PARTS: Final = ("config", "state", "evidence", "bundles")


class Place(NamedTuple):
    """A file, and where in a backup it goes: its part, and its path below that part's folder."""

    part: str
    below: str
    path: Path

    @property
    def name(self) -> str:
        """The member's name."""
        return f"{self.part}/{self.below}"


def folder(part: str, settings: Settings) -> Path:
    """Where the files of one of PARTS lie."""
    return {
        "config": Path(paths.config_dir()),
        "state": Path(paths.state_dir()),
        "evidence": settings.evidence_dir,
        "bundles": Path(paths.bundles_dir()),
    }[part]


def files(settings: Settings, *, keys: bool) -> Iterator[Place]:
    """Every file, those of the evidence in the order in which they are to be copied."""
    root = folder("config", settings)
    for path in _below(root):
        below = path.relative_to(root).as_posix()
        if (keys or not below.startswith(f"{JOINED}/")) and path.stat().st_size <= MAX_CONFIG:
            yield Place("config", below, path)
    root = folder("state", settings)
    seen: set[Path] = set()
    for name in (*STATE, *(KEYS if keys else ())):
        top = root / name
        for path in [top] if top.is_file() else _below(top):
            if path not in seen:
                seen.add(path)
                yield Place("state", path.relative_to(root).as_posix(), path)
    root = folder("evidence", settings)
    found = [path for path in _below(root) if path.suffix != ids.SUFFIX]
    # what says how long a file is comes before the file, and the file that is written last
    found.sort(key=lambda path: (path.parent != root, path.relative_to(root).as_posix()))
    yield from (Place("evidence", path.relative_to(root).as_posix(), path) for path in found)
    root = folder("bundles", settings)
    for path in _below(root):
        yield Place("bundles", path.relative_to(root).as_posix(), path)


def _below(root: Path) -> Iterator[Path]:
    """Plain files, in the order of their names; what begins with a dot is a lock, or half done."""
    if not root.is_dir():
        return
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(".") and not entry.name.endswith(".shared"):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _below(entry)
        elif entry.is_file():  # a link to one is that file: people link their configuration
            yield entry
