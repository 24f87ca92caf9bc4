"""Codex' files: which have something new, and reading it once, line by line.

The one rule: a file that is not remembered is read from its begin, and what was written before
`floor` is passed over. So nothing has to be remembered of old files, a session that goes on after
months is told from there, and the first start tells nothing that is old.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

#: Longest line that is understood; a longer one is passed over, and counted.
LONGEST: Final = 16 << 20
#: Bytes read at once.
CHUNK: Final = 1 << 18
#: Folders of days that are watched, the newest: each costs a little at every notice.
MAX_FOLDERS: Final = 62
#: Newest folders whose files are always looked at; those of older ones when something moved there.
HOT_FOLDERS: Final = 2
#: Files that are remembered, those that changed last.
MAX_FILES: Final = 256
#: A file's time is the kernel's, which is coarser than ours.
COARSE_NS: Final = 2_000_000_000


@dataclass
class Place:
    """How far a file is read: `offset` is behind a line's end; `size` what it had then."""

    offset: int = 0
    size: int = 0
    changed_ns: int = 0


@dataclass(frozen=True)
class Line:
    """One line; `value` is None for one that is no JSON object, or is too long."""

    value: dict[str, Any] | None
    end: int


@dataclass
class Files:
    """The rollouts below a folder. Times are nanoseconds since the epoch."""

    root: Path
    floor_ns: int
    places: dict[str, Place] = field(default_factory=dict)

    def folders(self) -> list[Path]:
        """The folders of days, the newest first."""
        return [path for path in self.watched() if len(path.parts) == len(self.root.parts) + 3]

    def watched(self) -> list[Path]:
        """What to watch, so that no file and no folder that comes is missed: the root, years,
        months, and the newest days."""
        years = _inside(self.root)
        months = [month for year in years for month in _inside(year)]
        days: list[Path] = []
        for month in months:
            days += _inside(month)
            if len(days) >= MAX_FOLDERS:
                break
        return [self.root, *years, *months[:MAX_FOLDERS], *days[:MAX_FOLDERS]]

    def changed(self, folders: list[Path]) -> list[Path]:
        """The files with something new, the oldest change first. Folders that nothing has happened
        in for long are looked at only when the others do not explain the notice."""
        hot = {self.root / name for name in self.places} | set(_rollouts(folders[:HOT_FOLDERS]))
        found = self._news(hot)
        return found or self._news(set(_rollouts(folders[HOT_FOLDERS:])))

    def _news(self, paths: set[Path]) -> list[Path]:
        found = []
        for path in paths:
            try:
                status = path.stat()
            except OSError:
                continue
            place = self.places.get(self._name(path))
            if place is None:
                new = status.st_mtime_ns > self.floor_ns - COARSE_NS
            else:
                new = status.st_size != place.size
            if new and status.st_size:
                found.append((status.st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def place(self, path: Path) -> Place:
        """How far it is read; a file that became shorter is another one."""
        place = self.places.setdefault(self._name(path), Place())
        if path.stat().st_size < place.offset:
            place.offset = 0
        return place

    def note(self, path: Path, status: os.stat_result, offset: int) -> None:
        """It is read up to there, as it was then."""
        self.places[self._name(path)] = Place(offset, status.st_size, status.st_mtime_ns)

    def stopped(self, path: Path, status: os.stat_result, offset: int) -> None:
        """It is read up to there and not yet to its end: there is something new in it."""
        self.places[self._name(path)] = Place(offset, offset, status.st_mtime_ns)

    def forget(self, now_ns: int) -> None:
        """Keep the newest places. All others are read to their end at `now_ns`: what is written
        to them from now on is later than that."""
        if len(self.places) <= MAX_FILES:
            return
        kept = sorted(self.places.items(), key=lambda item: item[1].changed_ns)[-MAX_FILES // 2 :]
        self.places, self.floor_ns = dict(kept), now_ns

    def dump(self) -> dict[str, Any]:
        """As JSON holds it."""
        files = {name: [p.offset, p.size, p.changed_ns] for name, p in self.places.items()}
        return {"floor_ns": self.floor_ns, "files": files}

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Go on where `dump` was; what is no dump changes nothing."""
        floor, files = stored.get("floor_ns"), stored.get("files")
        if not isinstance(floor, int) or not isinstance(files, dict):
            return
        self.floor_ns = floor
        for name, place in files.items():
            if (
                isinstance(place, list)
                and len(place) == 3
                and all(isinstance(number, int) for number in place)
            ):
                self.places[name] = Place(*place)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))


def read(path: Path, offset: int) -> Iterator[Line]:
    """The whole lines behind the offset. What is still being written is left for the next time."""
    with path.open("rb") as file:
        file.seek(offset)
        held = b""
        too_long = 0
        while chunk := file.read(CHUNK):
            *ended, rest = (held + chunk).split(b"\n")
            for line in ended:
                offset += len(line) + too_long + 1
                yield Line(None if too_long else _object(line), offset)
                too_long = 0
            held = rest
            if too_long or len(held) > LONGEST:
                too_long, held = too_long + len(held), b""


def first(path: Path) -> dict[str, Any] | None:
    """The first line."""
    return next((line.value for line in read(path, 0)), None)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _inside(folder: Path) -> list[Path]:
    """Folders named by a number, the highest first."""
    try:
        found = [path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]
    except OSError:
        return []
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def _rollouts(folders: list[Path]) -> Iterator[Path]:
    for folder in folders:
        try:
            names = os.listdir(folder)  # noqa: PTH208 (a year of sessions is many objects)
        except OSError:
            continue
        for name in names:
            if name.startswith("rollout-") and name.endswith(".jsonl"):
                yield folder / name
