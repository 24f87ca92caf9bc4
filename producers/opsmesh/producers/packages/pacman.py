"""pacman's log. A transaction is what libalpm writes between `transaction started` and its end.

Lines are `[TIME] [WHO] TEXT`, untranslated (libalpm's lib/libalpm/log.c, trans.c, add.c and
remove.c); only those of ALPM count: a package's scriptlet writes as ALPM-SCRIPTLET, and may say
anything. Before 4.2 transactions had no begin and no end in the log: what lies outside is passed
over.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from opsmesh.producers.packages.transaction import Change, Operation, Outcome, Transaction

_LINE: Final = re.compile(r"\[(?P<time>[^\]]{1,40})\] \[(?P<who>[^\]\s]{1,40})\] (?P<text>.*)")
_CHANGE: Final = re.compile(
    r"(?P<verb>installed|upgraded|downgraded|reinstalled|removed) "
    r"(?P<name>[^\s()]+) \((?:(?P<old>[^\s()]+) -> )?(?P<version>[^\s()]+)\)"
)
_RUNNING: Final = re.compile(r"Running '(?P<command>.*)'")
_VERBS: Final[dict[str, Operation]] = {
    "installed": "install",
    "upgraded": "upgrade",
    "downgraded": "downgrade",
    "reinstalled": "reinstall",
    "removed": "remove",
}
_ENDS: Final[dict[str, Outcome]] = {
    "transaction completed": "completed",
    "transaction failed": "failed",
    "transaction interrupted": "interrupted",
}


class Pacman:
    """See `transaction.Parser`."""

    manager = "pacman"

    def __init__(self) -> None:
        self._command: str | None = None
        self._open: Transaction | None = None

    @property
    def open(self) -> bool:
        """See `transaction.Parser`."""
        return self._open is not None

    @property
    def resting(self) -> bool:
        """See `transaction.Parser`."""
        return self._open is None and self._command is None

    def feed(self, line: str) -> Transaction | None:
        """See `transaction.Parser`."""
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        who, text, time = found["who"], found["text"], found["time"]
        if who == "PACMAN":
            if running := _RUNNING.fullmatch(text):
                self._command = running["command"]
            return None
        if who == "ALPM-SCRIPTLET":
            return None
        if who != "ALPM":  # pamac or PackageKit is at work: the command is none of theirs
            self._command = None
            return None
        if text == "transaction started":
            cut, self._open = self._open, None
            self._open = Transaction(manager="pacman", command=self._command, started_at=_rfc(time))
            self._command = None
            if cut is not None:
                cut.outcome = "cut"
                return cut
        elif text in _ENDS and self._open is not None:
            done, self._open = self._open, None
            done.outcome, done.completed_at = _ENDS[text], _rfc(time)
            return done if done.packages or done.outcome != "completed" else None
        elif self._open is not None and (change := _CHANGE.fullmatch(text)):
            removed = change["verb"] == "removed"
            self._open.packages.append(
                Change(
                    name=change["name"],
                    operation=_VERBS[change["verb"]],
                    version=None if removed else change["version"],
                    old_version=change["version"] if removed else change["old"],
                )
            )
        return None


def _rfc(text: str) -> str | None:
    """`2026-11-23T01:16:14+0000`; `2013-01-31 10:00`, the local time of pacman before 5.2."""
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        return None
