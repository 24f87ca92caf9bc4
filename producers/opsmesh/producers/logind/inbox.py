"""The folder that hypridle's commands leave their word in: one empty file a lock or unlock.

The name says what happened and the file's time says when, so that a word that was left while the
producer was away is told with its own time, and nothing can be half written. A shell makes such a
file without starting anything (`: > locked.$$`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsmesh.router import paths

#: The names that count; the number is the shell's process id.
NAME: Final = re.compile(r"(locked|unlocked)\.(\d{1,10})")


@dataclass(frozen=True, order=True)
class Word:
    """One file: when it was made, by whom, and what it says."""

    at_us: int
    pid: int
    locked: bool
    path: Path


def folder() -> Path:
    """Where the files are: in the runtime directory, which goes with the session."""
    return Path(paths.runtime_dir(), "lock")


def words(place: Path) -> list[Word]:
    """What was left, the oldest first; other files are none of ours."""
    found = []
    try:
        entries = list(place.iterdir())
    except OSError:
        return []
    for path in entries:
        name = NAME.fullmatch(path.name)
        if name is None:
            continue
        try:
            at_us = path.lstat().st_mtime_ns // 1000
        except OSError:
            continue
        found.append(Word(at_us, int(name[2]), name[1] == "locked", path))
    return sorted(found)


def command(place: Path, *, locked: bool) -> str:
    """The shell command that leaves the word. It must cost a lock program nothing: `mkdir` is only
    started when the folder is missing."""
    file = place / ("locked" if locked else "unlocked")
    return f"[ -d {_quoted(place)} ] || mkdir -p -m 700 {_quoted(place)}; : > {_quoted(file)}.$$"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"
