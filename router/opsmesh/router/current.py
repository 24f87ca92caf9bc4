"""The settings of a process that goes on: what is changed in a file of theirs needs no restart."""

from __future__ import annotations

import contextlib
import threading

import structlog

from opsmesh.router.mcp_servers import imported_file
from opsmesh.router.settings import Settings, config_file

log = structlog.get_logger()


class Current:
    """The settings in force, read again when a file of theirs has changed. Threads may share it."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, int, int], ...] | None = None
        self._settings = settings

    def get(self) -> Settings:
        """The settings. Files that were broken meanwhile leave the last good ones in force; without
        any, what pydantic-settings raises."""
        with self._lock:
            now = _versions()
            if self._settings is not None and now == self._read:
                return self._settings
            try:
                self._settings = Settings()
            except Exception as error:
                if self._settings is None:
                    raise
                log.warning("settings.broken", error=str(error)[:500])
            self._read = now
            return self._settings


def _versions() -> tuple[tuple[int, int, int], ...]:
    found = []
    for path in (config_file(), imported_file()):
        facts = (0, 0, 0)
        with contextlib.suppress(OSError):
            stat = path.stat()
            facts = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        found.append(facts)
    return tuple(found)
