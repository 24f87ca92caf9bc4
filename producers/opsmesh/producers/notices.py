"""inotify for all sources at once: says *which source* may have changed, never what.

Whoever hears it looks for itself (`snapshot`), so a doubled notice does no harm and a full queue
means "look at all of them".
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable
from typing import Final

from inotify_simple import INotify, flags

from opsmesh.producers.errors import ProducerError

#: No ACCESS and no OPEN: reading is no change, and our own look would wake us.
MASK: Final = (
    flags.CREATE
    | flags.DELETE
    | flags.CLOSE_WRITE
    | flags.MODIFY
    | flags.ATTRIB
    | flags.MOVED_FROM
    | flags.MOVED_TO
    | flags.DELETE_SELF
    | flags.MOVE_SELF
    | flags.ONLYDIR
)
#: The watched folder itself has gone somewhere else, or away.
SELF: Final = flags.DELETE_SELF | flags.MOVE_SELF | flags.UNMOUNT
APPEARED: Final = flags.CREATE | flags.MOVED_TO


class Notices:
    """One inotify for the sources of a producer; a source is known by its key.

    `matters`: whether an entry of a watched folder is a source's matter, by its name and whether
    it is a folder; what does not is neither told nor, as a new folder, watched.
    """

    def __init__(self, matters: Callable[[str, bool], bool]) -> None:
        self._matters = matters
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            raise ProducerError(f"inotify: {error}; see fs.inotify.max_user_instances") from error
        #: By descriptor: the folder, and by source the names that matter in it (None: all).
        self._watched: dict[int, tuple[str, dict[str, set[str] | None]]] = {}

    def arm(self, key: str, folder: str, names: set[str] | None = None) -> None:
        """Watch a folder for a source. FileNotFoundError, NotADirectoryError, PermissionError."""
        try:  # a folder that has a watch gives the same descriptor again
            wd = self._inotify.add_watch(os.fsencode(folder), MASK)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise ProducerError(
                    f"no inotify watch is left for {folder}: raise fs.inotify.max_user_watches "
                    "(sysctl), or name a smaller folder as source"
                ) from error
            raise
        _, wanted = self._watched.get(wd, ("", {}))
        before = wanted.get(key, set())
        wanted[key] = None if names is None or before is None else before | names
        self._watched[wd] = (folder, wanted)

    def arm_way(self, key: str, path: str) -> None:
        """Watch for the coming and going of `path`, from the nearest folder above it that is."""
        below = path
        while below != (parent := os.path.dirname(below)):  # noqa: PTH120
            try:
                self.arm(key, parent, {os.path.basename(below)})  # noqa: PTH119
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                below = parent
                continue
            if below == path or not os.path.isdir(below):  # noqa: PTH112
                return
            below = path  # it appeared between the two looks: nearer, then

    def forget(self, key: str) -> None:
        """Take the source's folders out; those of no source any more lose their watch."""
        for wd, (_, wanted) in list(self._watched.items()):
            wanted.pop(key, None)
            if not wanted:
                del self._watched[wd]
                try:
                    self._inotify.rm_watch(wd)
                except OSError:
                    continue  # it went with its folder

    def wait(self, timeout: float | None) -> dict[str, int]:
        """How many changes each source saw; empty after `timeout` seconds."""
        ready, _, _ = select.select([self._inotify], [], [], timeout)
        changed: dict[str, int] = {}
        for notice in self._inotify.read(timeout=0) if ready else ():
            for key in self._keys(notice.wd, notice.mask, os.fsdecode(notice.name)):
                changed[key] = changed.get(key, 0) + 1
        return changed

    def _keys(self, wd: int, mask: int, name: str) -> list[str]:
        if mask & flags.Q_OVERFLOW:
            return list({key for _, wanted in self._watched.values() for key in wanted})
        if wd not in self._watched:
            return []  # of a watch that we gave up
        folder, wanted = self._watched[wd]
        if mask & flags.IGNORED:
            del self._watched[wd]
            return list(wanted)
        if mask & SELF:
            return list(wanted)
        if not name:
            return []  # the folder's own attributes
        keys = [
            key
            for key, names in wanted.items()
            if (self._matters(name, bool(mask & flags.ISDIR)) if names is None else name in names)
        ]
        if mask & flags.ISDIR and mask & APPEARED:
            for key in keys:
                if wanted[key] is None:
                    self._arm_tree(key, os.path.join(folder, name))  # noqa: PTH118
        return keys

    def _arm_tree(self, key: str, folder: str) -> None:
        """A new folder is watched at once: what is written to it belongs to the same burst."""
        for path, folders, _ in os.walk(folder):
            folders[:] = [name for name in folders if self._matters(name, True)]
            try:
                self.arm(key, path)
            except OSError:
                continue

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()
