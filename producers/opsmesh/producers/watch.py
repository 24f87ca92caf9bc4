"""Waiting for files and folders that may not exist yet.

A Watch says *that* something changed, never what: whoever waits looks for itself. So a missed or
doubled notice of the kernel can do no harm, and a full queue of notices means "look".
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from inotify_simple import INotify, flags

#: What is asked for: everything that makes a folder's content, or itself, another.
MASK: Final = (
    flags.CREATE
    | flags.DELETE
    | flags.MODIFY
    | flags.CLOSE_WRITE
    | flags.ATTRIB
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
#: The folder itself is gone, or is somewhere else; or notices were lost.
GONE: Final = flags.DELETE_SELF | flags.MOVE_SELF | flags.IGNORED | flags.UNMOUNT | flags.Q_OVERFLOW

#: Every entry of a folder.
ANY: Final = ""


class Watch:
    """Tells when something was created, written, moved or deleted at the paths: for a folder, its
    direct entries; for what does not exist, the way to it.

    No polling: an idle Watch costs nothing. OSError when the user's inotify instances or watches
    are used up (`fs.inotify.max_user_instances`, `…watches`).
    """

    def __init__(self, *paths: str | Path) -> None:
        self._paths = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (no symlinks)
        self._inotify = INotify(nonblocking=True)
        self._names: dict[int, set[str]] = {}
        self._arm()

    def wait(self, timeout: float | None = None) -> bool:
        """True once something may have changed since the last call gave True; False after
        `timeout` seconds. None: wait without end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._inotify], [], [], left)
            if not ready:
                return False
            if self._relevant():
                return True

    def fileno(self) -> int:
        """For select: readable means that `wait(0)` has something to say."""
        return int(self._inotify.fileno())

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _relevant(self) -> bool:
        """Take all notices; whether one of them is about our paths. Watches follow the paths."""
        hit = False
        for notice in self._inotify.read(timeout=0):
            names = self._names.get(notice.wd, set())
            hit |= bool(notice.mask & GONE) or ANY in names or notice.name in names
        if hit:
            self._arm()
        return hit

    def _arm(self) -> None:
        """Watch each path, or the nearest folder above it that exists.

        What appears between looking and watching would be missed: so look again until it is the
        same before and after.
        """
        ways: list[tuple[Path, str]] = []
        while ways != (ways := [way for path in self._paths for way in _ways(path)]):
            self._add(ways)

    def _add(self, ways: list[tuple[Path, str]]) -> None:
        wanted: dict[int, set[str]] = {}
        for folder, name in ways:
            try:  # a folder that has a watch gives the same descriptor again
                wd = self._inotify.add_watch(folder, MASK)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it went just now, and is looked for again
            wanted.setdefault(wd, set()).add(name)
        for wd in self._names.keys() - wanted.keys():
            try:
                self._inotify.rm_watch(wd)
            except OSError:
                continue  # it went with its folder
        self._names = wanted


def _ways(path: Path) -> Iterator[tuple[Path, str]]:
    """The folders to watch for a path, and the entry that matters in each (ANY: all of them)."""
    if path.is_dir():
        yield path, ANY
    while path != path.parent:
        path, name = path.parent, path.name
        if path.is_dir():
            yield path, name
            return
