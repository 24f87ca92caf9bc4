"""One package manager's log, followed: which transactions are news, and how far it has been read.

A transaction's id is derived from what the log says of it. The log has seconds, and two that are
alike can end in the same one: so it is counted how many of them came before, and the count is kept
with the place in the log.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.packages import tail
from opsmesh.producers.packages.apt import Apt
from opsmesh.producers.packages.pacman import Pacman
from opsmesh.producers.packages.tail import Log, Place
from opsmesh.producers.packages.transaction import Parser, Transaction
from opsmesh.schemas import ids, times

#: Ids of what was told, kept while a log is read again from before them: an end is still to come.
RECENT: Final = 1024
#: Microseconds that the clock of a log may be coarser than ours; pacman before 5.2 wrote minutes.
COARSE_US: Final = 60_000_000

Tell = Callable[[Transaction, str], None]
TellGap = Callable[[dict[str, Any], str], None]


class Alike:
    """How many transactions of the latest second were alike."""

    def __init__(self, at: str = "", counts: dict[str, int] | None = None) -> None:
        self._at, self._counts = at, dict(counts or {})

    @classmethod
    def restore(cls, stored: Any) -> Alike:
        """What `dump` gave; empty for anything else."""
        try:
            return cls(str(stored["at"]), {str(k): int(v) for k, v in stored["counts"].items()})
        except (KeyError, TypeError, ValueError, AttributeError):
            return cls()

    def dump(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"at": self._at, "counts": dict(self._counts)}

    def event_id(self, transaction: Transaction) -> str:
        """The id of the next one."""
        at = transaction.at
        if at != self._at:
            self._at, self._counts = at or "", {}
        # Not the whole text: a large upgrade has some hundred kilobytes. Two hosts may do the same
        # within a second, and the hub would take the second one for the first.
        facts = ids.derived(
            0, os.uname().nodename, json.dumps(transaction.payload(), sort_keys=True)
        )
        before = self._counts.get(facts, 0)
        self._counts[facts] = before + 1
        ms = times.parse_us(at) // 1000 if at else 0
        return ids.derived(ms, "package.txn.completed", facts, str(before))


class Follower:
    """Reads the log of `manager`. `moved`: the last look has something to be stored."""

    def __init__(self, manager: str, path: Path, *, since_us: int | None = None) -> None:
        self.manager, self.log, self.moved = manager, Log(path), False
        self._since_us = since_us
        #: None: there was no first look yet, or the log may not be read.
        self._place: Place | None = None
        self._noted_us = 0
        self._alike = Alike()
        self._recent: OrderedDict[str, None] = OrderedDict()

    def exists(self) -> bool:
        """Whether there is a log, as far as this user may see."""
        try:
            return self.log.path.exists()
        except OSError:
            return True  # in a folder that this user may not look into

    def closed(self) -> str | None:
        """Why it cannot be read; None when it can, or is not there yet."""
        path = self.log.path
        if not self.exists() or os.access(path, os.R_OK):
            return None
        return f"this user may not read {path}"

    def restore(self, stored: Any) -> None:
        """Go on where `dump` was; else see where to begin."""
        self._place = Place.restore(stored)
        if self._place is not None:
            self._alike = Alike.restore(stored.get("alike"))
            noted = stored.get("noted_us")
            self._noted_us = noted if isinstance(noted, int) else 0
            return
        try:
            self._begin()
        except tail.UNREADABLE:
            return  # `look` says why

    def dump(self) -> dict[str, Any] | None:
        """As JSON holds it."""
        if self._place is None:
            return None
        return {**self._place.dump(), "noted_us": self._noted_us, "alike": self._alike.dump()}

    def look(self, tell: Tell, tell_gap: TellGap) -> None:
        """Tell what is new; before it the gap, when something may be lost. OSError for a log that
        is not for us to read."""
        self.moved = False
        try:
            for _ in range(tail.TRIES):
                try:
                    return self._look(tell, tell_gap)
                except tail.Rotated:
                    continue
        except OSError:
            raise
        except tail.UNREADABLE as error:
            raise OSError(f"is damaged: {error}") from error

    def _look(self, tell: Tell, tell_gap: TellGap) -> None:
        now_us = times.now_us()
        if self._place is None:
            self._begin()
            self.moved = True
        place = self._place or Place()
        files, after_us = self.log.files(place), self._since_us or 0
        if is_gap := files is None:
            tell_gap(*self._gap(place, now_us))
            # what is older is told already, or is what the first start passed over
            files, after_us = self.log.present(), self._noted_us - COARSE_US
            self._alike = Alike()
        parser, alike, end = self._parser(), Alike.restore(self._alike.dump()), place
        try:
            for path, start in files:
                for line in tail.read(path, start):
                    if (found := parser.feed(line.text)) is not None:
                        self._tell(found, alike.event_id(found), after_us, tell)
                    end = line.place
                    if parser.resting:
                        place, self._alike = end, Alike.restore(alike.dump())
            if len(files) > 1 and not parser.open:
                place = end
            if is_gap and place == self._place:
                place = self.log.end()
        finally:  # also when we are stopped in the middle
            if place != self._place:
                self._place, self._noted_us, self.moved = place, now_us, True

    def _tell(self, found: Transaction, event_id: str, after_us: int, tell: Tell) -> None:
        """Tell it, unless it was told, or is older than what is wanted."""
        if event_id in self._recent:
            return
        if after_us and found.at and times.parse_us(found.at) < after_us:
            return
        tell(found, event_id)
        self._recent[event_id] = None
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def _begin(self) -> None:
        """The first place: before a transaction that is under way, else at the end."""
        self._noted_us = times.now_us()
        if self._since_us is not None:
            self._place = Place()
            return
        place, parser = self.log.end(), self._parser()
        rest = place
        for path, start in self.log.recent():
            rest = start
            for line in tail.read(path, start):
                parser.feed(line.text)
                if parser.resting:
                    rest = line.place
        self._place = place if parser.resting else rest

    def _parser(self) -> Parser:
        return Pacman() if self.manager == "pacman" else Apt()

    def _gap(self, place: Place, now_us: int) -> tuple[dict[str, Any], str]:
        """A gap's payload and its id: one gap is one event, however often it is found."""
        payload = {
            "source": "packages",
            "kind": "rotated_away",
            "last_known": place.offset,
            "from_time": times.format_us(self._noted_us),
            "to_time": times.format_us(now_us),
            "message": f"{self.log.path} does not go on where it was left, nor does a rotated one",
        }
        parts = (self.manager, str(place.offset), place.before)
        return payload, ids.derived(self._noted_us // 1000, "mesh.gap.detected", *parts)
