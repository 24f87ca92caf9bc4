"""What several sources say together: one event a lock, however many saw it. Reads no clock.

hypridle sees every lock of the compositor; logind's LockedHint is only what a lock program or a
desktop has set, and hyprlock sets none. Where both see a lock, the second one confirms it: for a
while even if the session was unlocked again in between, for the two are not equally fast. (Its
price: a lock that only one saw, and an unlock, hide one within SAME that only the other sees.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

HYPRIDLE: Final = "hypridle"
LOGIND: Final = "logind"
SLEEP: Final = "sleep"

#: Seconds within which a second source speaks of the same lock.
SAME: Final = 3.0
#: Sessions that are remembered, at most; the oldest goes first.
REMEMBERED: Final = 64


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact to emit."""

    session: str
    state: str
    locked: bool
    cause: str
    at_us: int

    def payload(self) -> dict[str, Any]:
        """What `desktop.idle.locked` says of it."""
        facts = {"locked": self.locked, "state": self.state, "cause": self.cause}
        return {**facts, "session": self.session} if self.session else facts

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass
class Change:
    """A change that was told, and who has confirmed it."""

    locked: bool
    at_us: int
    seen_by: set[str]


@dataclass
class Lock:
    """One session: whether it is locked, what logind's hint was last, and what was just told."""

    locked: bool = False
    hint: bool = False
    told: list[Change] = field(default_factory=list)


class Locks:
    """The locks of one user's sessions."""

    def __init__(self) -> None:
        self._locks: dict[str, Lock] = {}
        self._asleep = False

    def see(self, session: str, source: str, *, locked: bool, at_us: int) -> Finding | None:
        """A source saw the session being locked or unlocked: the news in that, if any."""
        lock = self._lock(session)
        lock.told = [change for change in lock.told if at_us - change.at_us <= SAME * 1e6]
        for change in lock.told:
            if change.locked == locked and source not in change.seen_by:
                change.seen_by.add(source)
                return None
        if lock.locked == locked:
            return None
        lock.locked = locked
        lock.told.append(Change(locked, at_us, {source}))
        state = "locked" if locked else "unlocked"
        return Finding(session=session, state=state, locked=locked, cause=source, at_us=at_us)

    def hint(self, session: str, *, locked: bool, at_us: int) -> Finding | None:
        """logind's hint is `locked` now: the news in that, if any."""
        lock = self._lock(session)
        if lock.hint == locked:
            return None
        lock.hint = locked
        return self.see(session, LOGIND, locked=locked, at_us=at_us)

    def sleep(self, session: str, *, asleep: bool, at_us: int) -> Finding | None:
        """The machine is about to sleep, or is back: the news in that, if any."""
        if asleep == self._asleep:
            return None
        self._asleep = asleep
        return Finding(
            session=session,
            state="sleeping" if asleep else "woke",
            locked=self._locks[session].locked if session in self._locks else False,
            cause=SLEEP,
            at_us=at_us,
        )

    def forget(self, session: str) -> None:
        """The session is over: that is no unlock, and its name may be another's."""
        self._locks.pop(session, None)

    def dump(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        known = {name: [lock.locked, lock.hint] for name, lock in self._locks.items()}
        return {"locks": known, "asleep": self._asleep}

    def restore(self, remembered: Mapping[str, Any]) -> None:
        """Take back what `dump` gave; KeyError, TypeError or ValueError for anything else."""
        pairs = {str(name): tuple(pair) for name, pair in dict(remembered["locks"]).items()}
        self._locks = {
            name: Lock(locked=bool(locked), hint=bool(hint))
            for name, (locked, hint) in pairs.items()
        }
        self._asleep = bool(remembered["asleep"])

    def _lock(self, session: str) -> Lock:
        if session not in self._locks and len(self._locks) >= REMEMBERED:
            self._locks.pop(next(iter(self._locks)))
        return self._locks.setdefault(session, Lock())
