"""Which servers there are, as the settings say now: a server that is added needs no restart."""

from __future__ import annotations

import contextlib

import structlog

from opsmesh.router.mcp_servers import McpServer, imported_file
from opsmesh.router.settings import Settings, config_file

log = structlog.get_logger()


class Book:
    """The servers of the settings, read again when a file of theirs has changed."""

    def __init__(self) -> None:
        self._read: tuple[tuple[int, int, int], ...] | None = None
        self._servers: dict[str, McpServer] = {}

    def servers(self) -> dict[str, McpServer]:
        """All of them by name. Settings that were broken meanwhile leave the last good ones."""
        now = _versions()
        if now == self._read:
            return self._servers
        first = self._read is None
        self._read = now
        try:
            self._servers = Settings().mcp_servers
        except Exception as error:
            if first:
                self._read = None
                raise
            log.warning("mcp.settings_broken", error=str(error)[:500])
        return self._servers


def _versions() -> tuple[tuple[int, int, int], ...]:
    found = []
    for path in (config_file(), imported_file()):
        facts = (0, 0, 0)
        with contextlib.suppress(OSError):
            stat = path.stat()
            facts = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        found.append(facts)
    return tuple(found)
