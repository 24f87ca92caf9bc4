"""What lies in a source at one moment, so that two moments can be compared.

A file is what it holds: one that was written again with the same content has not changed. It is
read only where its inode says that it may be another.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

#: Names that are no dotfiles: version control, and what editors leave beside a file for a while
#: (Vim's swap files and its probe 4913, Emacs' locks and autosaves, backups, GLib, JetBrains, NFS).
NOISE: Final = re.compile(
    r"\.git|\.hg|\.svn|\.jj|4913|.*~|\..*\.sw[a-z]|.*\.sw[opx]|\.#.*|#.*#|\.goutputstream-.*"
    r"|.*___jb_(tmp|old)___|\.nfs[0-9a-f]+|.*\.kate-swp",
    re.DOTALL,
)
#: Bytes up to which a file is read; a larger one is known by its size and times.
READ_UP_TO: Final = 4 * 1024 * 1024
#: Files of a source; more are no dotfiles, but something else below the same folder.
MOST: Final = 20_000
#: Seconds that a file must be old for its times to tell whether it was written again
#: (git's documentation calls younger ones "racy").
SETTLED: Final = 2.0

#: By the path below the root: what the inode said, and what the file is.
Snapshot = dict[str, list[Any]]


class TooMany(Exception):
    """A source holds more than dotfiles."""

    def __init__(self, root: str) -> None:
        super().__init__(f"{root} holds more than {MOST} files: name a smaller folder as source")
        self.root = root


def noise(name: str) -> bool:
    """Whether an entry of this name is left out."""
    return NOISE.fullmatch(name) is not None


def of_tree(root: str, before: Mapping[str, Any], arm: Callable[[str], None]) -> Snapshot:
    """Everything below `root`. Each folder is handed to `arm` before it is read, so that nothing
    which appears meanwhile is missed. No link is followed."""
    found: Snapshot = {}
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            arm(folder)
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError:  # what we may not see any more is not gone
            within = "" if folder == root else os.path.relpath(folder, root) + os.sep
            found |= {path: seen for path, seen in before.items() if path.startswith(within)}
            continue
        for name in names:
            if noise(name):
                continue
            path = os.path.join(folder, name)  # noqa: PTH118
            seen = _look(path, before.get(below := os.path.relpath(path, root)))
            if seen is None:
                waiting.append(path)
            elif seen:
                found[below] = seen
        if len(found) > MOST:
            raise TooMany(root)
    return found


def of_files(root: str, names: Iterable[str], before: Mapping[str, Any]) -> Snapshot:
    """These files below `root`, those that are there."""
    found: Snapshot = {}
    for name in names:
        if seen := _look(os.path.join(root, name), before.get(name)):  # noqa: PTH118
            found[name] = seen
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The paths that came, went, or hold something else."""
    return sorted(
        path
        for path in before.keys() | now.keys()
        if (path in before) != (path in now) or before[path][-1] != now[path][-1]
    )


def _look(path: str, before: Any) -> list[Any] | None:
    """What a file is; None for a folder, and [] for what is gone."""
    try:
        status = os.lstat(path)
    except OSError:
        return []
    if stat.S_ISDIR(status.st_mode):
        return None
    inode = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    if isinstance(before, list) and before[:1] == [inode]:
        return before
    young = time.time() - max(status.st_mtime, status.st_ctime) < SETTLED
    return [[] if young else inode, _content(path, status)]


def _content(path: str, status: os.stat_result) -> str:
    kind = f"{stat.S_IFMT(status.st_mode):o}{'x' if status.st_mode & 0o111 else ''}"
    try:
        if stat.S_ISLNK(status.st_mode):
            data = os.fsencode(os.readlink(path))  # noqa: PTH115
        elif stat.S_ISREG(status.st_mode) and status.st_size <= READ_UP_TO:
            data = _read(path)
        else:  # never opened: a pipe would keep us waiting for its other end
            data = b"%d %d" % (status.st_size, status.st_mtime_ns)
    except OSError:
        data = b"unreadable %d %d" % (status.st_size, status.st_mtime_ns)
    return f"{kind}:{hashlib.blake2b(data, digest_size=12).hexdigest()}"


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(READ_UP_TO)
