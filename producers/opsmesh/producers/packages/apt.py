"""apt's history log: stanzas of `Name: value`, one a transaction (apt's apt-pkg/deb/dpkgpm.cc).

A stanza's first half, up to the packages, is written before dpkg begins: it is what apt means to
do. Of a stanza that failed or was cut, parts may not have been done. What dpkg does without apt is
not in this log.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from opsmesh.producers.packages.transaction import Change, Operation, Transaction

_ITEM: Final = re.compile(
    r"(?P<name>[^\s,:()]+)(?::(?P<arch>[^\s,:()]+))?(?: \((?P<facts>[^()]*)\))?(?:, |$)"
)
_OPERATIONS: Final[dict[str, Operation]] = {
    "Install": "install",
    "Upgrade": "upgrade",
    "Downgrade": "downgrade",
    "Reinstall": "reinstall",
    "Remove": "remove",
    "Purge": "purge",
    "Disappeared": "remove",
}
#: What dpkg took away because another package has all its files; apt may not know its version.
_DISAPPEARED: Final = "Disappeared"
#: What stands behind the version of a package that was not asked for.
_AUTOMATIC: Final = "automatic"


class Apt:
    """See `transaction.Parser`."""

    manager = "apt"

    def __init__(self) -> None:
        self._open: Transaction | None = None

    @property
    def open(self) -> bool:
        """See `transaction.Parser`."""
        return self._open is not None

    @property
    def resting(self) -> bool:
        """See `transaction.Parser`."""
        return self._open is None

    def feed(self, line: str) -> Transaction | None:
        """See `transaction.Parser`."""
        name, colon, value = line.partition(": ")
        if not colon:
            return None
        if name == "Start-Date":
            cut, self._open = self._open, Transaction(manager="apt", started_at=_rfc(value))
            if cut is not None:
                cut.outcome = "cut"
                return cut
            return None
        current = self._open
        if current is None:
            return None
        if name == "Commandline":
            current.command = value
        elif name == "Requested-By":
            current.requested_by = value
        elif name == "Error":
            current.outcome, current.error = "failed", value
        elif name in _OPERATIONS:
            current.packages += _changes(name, value)
        elif name == "End-Date":
            self._open, current.completed_at = None, _rfc(value)
            return current if current.packages or current.outcome != "completed" else None
        return None


def _changes(tag: str, value: str) -> list[Change]:
    changes = []
    operation = _OPERATIONS[tag]
    for item in _ITEM.finditer(value):
        if item["facts"] is None and tag != _DISAPPEARED:
            continue  # every other one has its version
        facts = [fact.strip() for fact in (item["facts"] or "").split(",")]
        first, second = facts[0] or None, facts[1] if len(facts) > 1 else None
        gone = operation in ("remove", "purge")
        two = operation in ("upgrade", "downgrade")
        changes.append(
            Change(
                name=item["name"],
                operation=operation,
                version=None if gone else second if two else first,
                old_version=first if gone or two else None,
                arch=item["arch"],
                automatic=True if operation == "install" and _AUTOMATIC in facts[1:] else None,
            )
        )
    return changes


def _rfc(text: str) -> str | None:
    """`2026-11-23  01:24:57`, local time."""
    try:
        return datetime.fromisoformat(" ".join(text.split())).astimezone().isoformat()
    except (ValueError, OverflowError):
        return None
