"""`--host`: some hosts by their names, with the wildcards of a shell.

In a subject a host stands as its token (lower case, `_` for what is no letter or digit), so that a
name is the same host however it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from opsmesh.schemas.envelope import host_token


class Hosts:
    """Which are meant; all, when none is named."""

    def __init__(self, names: Sequence[str]) -> None:
        self._patterns = ["*".join(map(_token, name.split("*"))) for name in names]

    @property
    def tokens(self) -> list[str]:
        """For the subjects that a broker is asked for: it knows `*` only as a whole token."""
        exact = not any("*" in pattern for pattern in self._patterns)
        return list(dict.fromkeys(self._patterns)) if self._patterns and exact else ["*"]

    def subject(self, subject: str) -> bool:
        """Whether an event on `evt.HOST.…` is of one of them."""
        return self._has(subject.split(".", 2)[1])

    def named(self, host: str) -> bool:
        """Whether this host is one of them."""
        return self._has(host_token(host))

    def _has(self, token: str) -> bool:
        return not self._patterns or any(fnmatchcase(token, one) for one in self._patterns)


def _token(part: str) -> str:
    return host_token(part) if part else ""
