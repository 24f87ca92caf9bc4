"""Looks at projects again whenever something in them has changed, and it is quiet again.

Nothing is polled: an idle project costs nothing. When a look fails it is tried again after a while,
for what it failed for may lie where nobody watches, like a ruff that comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from opsmesh.producers.errors import ProducerError
from opsmesh.producers.notices import Notices
from opsmesh.producers.ruff import tree

#: A burst of saves is over after so many seconds without one; it is looked at after so many anyway.
SETTLE, MAX_WAIT = 0.2, 2.0
#: Seconds until a look that failed is tried again: first, longest.
RETRY, RETRY_LONGEST = 60.0, 3600.0


@dataclass
class Project:
    """One project, and what is due for it, as times of the monotonic clock."""

    path: Path
    first: float | None = None
    last: float = 0.0
    retry_at: float | None = None
    wait: float = RETRY


class Watching:
    """`look` is called for each project at the start, and after each burst of changes in it; a
    ProducerError that it raises is handed to `failed`."""

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        look: Callable[[Path], None],
        failed: Callable[[Path, ProducerError], None],
        settle: float = SETTLE,
        max_wait: float = MAX_WAIT,
    ) -> None:
        self._projects = {str(path): Project(path) for path in paths}
        self._look, self._failed = look, failed
        self._settle, self._max_wait = settle, max_wait

    def run(self) -> None:
        """Watch until told to stop. ProducerError when inotify cannot be had."""
        notices = Notices(tree.matters)
        try:
            for one in self._projects.values():
                self._turn(one, notices)
            while True:
                changed = notices.wait(self._timeout())
                now = time.monotonic()
                for key in changed:
                    one = self._projects[key]
                    one.first = now if one.first is None else one.first
                    one.last = now
                for one in self._projects.values():
                    due = self._due(one)
                    if due is not None and now >= due:
                        self._turn(one, notices)
        finally:
            notices.close()

    def _due(self, one: Project) -> float | None:
        if one.first is None:
            return one.retry_at
        return min(one.last + self._settle, one.first + self._max_wait)

    def _timeout(self) -> float | None:
        due = [at for one in self._projects.values() if (at := self._due(one)) is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _turn(self, one: Project, notices: Notices) -> None:
        """Watch first, then look: what changes meanwhile is seen by one or the other."""
        one.first = one.retry_at = None
        try:
            tree.arm(notices, str(one.path), one.path)
            self._look(one.path)
            one.wait = RETRY
        except ProducerError as error:
            one.retry_at = time.monotonic() + one.wait
            one.wait = min(one.wait * 2, RETRY_LONGEST)
            self._failed(one.path, error)
