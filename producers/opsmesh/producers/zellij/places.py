"""Where Zellij keeps its sockets, and where it writes what each session looks like.

Both hold a folder for each version of the contract between client and server
(`contract_version_1`): after an upgrade old sessions live on in the old one, beside the new.
Source: zellij-utils/src/consts.rs.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: What Zellij puts beside the sessions' sockets: the web server's own.
NOT_SESSIONS: Final = frozenset({"web_server_bus"})
_CONTRACT: Final = re.compile(r"contract_version_\d+")


@dataclass(frozen=True)
class Places:
    """The folder of sockets, and the folder of caches; neither needs to exist."""

    sockets: Path
    cache: Path

    @classmethod
    def here(cls, *, sockets: str = "", cache: str = "") -> Places:
        """Where Zellij itself looks in this environment, unless given."""
        return cls(Path(sockets) if sockets else _sockets(), Path(cache) if cache else _cache())

    def contracts(self) -> list[str]:
        """The versions of the contract that have sockets here."""
        return sorted(name for name in _entries(self.sockets) if _CONTRACT.fullmatch(name))

    def names(self, contract: str) -> list[str]:
        """What may be sessions: every socket's name."""
        folder = self.sockets / contract
        return sorted(
            name
            for name in _entries(folder)
            if name not in NOT_SESSIONS and (folder / name).is_socket()
        )

    def socket(self, contract: str, name: str) -> Path:
        """The session's socket."""
        return self.sockets / contract / name

    def metadata(self, contract: str, name: str) -> Path:
        """What Zellij writes of the session, at most once a second, when it is another."""
        return self.cache / contract / "session_info" / name / "session-metadata.kdl"


def _entries(folder: Path) -> Iterator[str]:
    try:
        # a name that is no UTF-8 is no session: Zellij itself gives up on such
        yield from (name for name in os.listdir(folder) if name.isprintable())  # noqa: PTH208
    except OSError:
        return


def _absolute(variable: str) -> Path | None:
    """As the XDG specification says, a path that is not absolute is as if it were not set."""
    value = os.environ.get(variable, "")
    return Path(value) if os.path.isabs(value) else None  # noqa: PTH117


def _sockets() -> Path:
    if given := os.environ.get("ZELLIJ_SOCKET_DIR"):
        return Path(given)
    if runtime := _absolute("XDG_RUNTIME_DIR"):
        return runtime / "zellij"
    return Path(tempfile.gettempdir()) / f"zellij-{os.getuid()}"


def _cache() -> Path:
    return (_absolute("XDG_CACHE_HOME") or Path.home() / ".cache") / "zellij"
