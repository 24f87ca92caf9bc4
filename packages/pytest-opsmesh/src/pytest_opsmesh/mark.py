"""A file that is there while tests run, and names the one that does: what a run leaves that
vanishes (`os._exit`, a signal), for `opsmesh exec` to tell."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

#: The folder for marks; `opsmesh exec` makes it. A mark is called `<pid>.<framework>`.
FOLDER = "OPSMESH_PYTEST_MARKS"


class Mark:
    """The mark of this process; none where nobody asked for one."""

    def __init__(self, framework: str) -> None:
        folder = os.environ.get(FOLDER, "")
        self._pid = os.getpid()
        self._path = f"{folder}/{self._pid}.{framework}" if folder else ""
        self._fd = -1
        if self._path:
            with contextlib.suppress(OSError):
                self._fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def write(self, test: str) -> None:
        """This test runs now. A process that was forked off has no say in it."""
        if self._fd >= 0 and os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                data = test.encode("utf-8", "replace")
                os.pwrite(self._fd, data, 0)
                os.ftruncate(self._fd, len(data))

    def remove(self) -> None:
        """The run came to its end."""
        if self._fd >= 0 and os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                os.close(self._fd)
                Path(self._path).unlink()
            self._fd = -1
