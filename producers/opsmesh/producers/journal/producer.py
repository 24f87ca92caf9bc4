"""The journal producer's loop: read, classify, emit, then remember how far.

The first start begins at the end of the journal, so that old failures are not told as news; `since`
lets it begin earlier. Every later start goes on where the last one stopped.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, ProducerError, Refused
from opsmesh.producers.host import say
from opsmesh.producers.journal import classify, position
from opsmesh.producers.journal.classify import Finding
from opsmesh.producers.journal.entry import number, text
from opsmesh.producers.journal.position import Gap, Position
from opsmesh.producers.journal.reader import JournalError, Source
from opsmesh.producers.journal.tracker import FLAP_RESTARTS, FLAP_WINDOW, Tracker
from opsmesh.router import paths
from opsmesh.schemas import durations, ids, times

#: Where journald keeps its files: across boots, and for this boot alone.
JOURNALS: Final = ("/var/log/journal", "/run/log/journal")
#: Seconds after which the cursor is stored although nothing was emitted: the older it is, the
#: sooner the journal has thrown its entry away.
STORE_EVERY: Final = 60.0
#: Whose units are told of.
SCOPES: Final = ("all", "system", "user")
#: How a user comes to see the system's journal.
JOIN: Final = "sudo usermod -aG systemd-journal $USER, then log in again"
#: The topic that a gap is told with.
GAP: Final = "mesh.gap.detected"


class Journal:
    """Service failures, core dumps and OOM kills, from the systemd journal."""

    name = "journal"
    description = "systemd journal: failed, throttled and flapping units, core dumps, OOM kills"
    topics: Sequence[str] = (
        classify.START_FAILED,
        classify.THROTTLED,
        classify.FLAPPING,
        classify.COREDUMP,
        classify.OOM,
        GAP,
    )

    def __init__(
        self,
        *,
        since: str = "",
        directory: str = "",
        flap_restarts: str = str(FLAP_RESTARTS),
        flap_window: str = durations.text(FLAP_WINDOW),
        scope: str = "all",
        ignore: str = "",
    ) -> None:
        """Options as text.

        `since`: where the first start begins, in journalctl's words ("-1h", "today"); `directory`:
        journal files to read instead of this machine's own; `flap_restarts` within `flap_window`
        make a flapping unit; `scope`: whose units are told of, `system`, `user` or `all`; `ignore`:
        units that are not, as patterns with commas between (`run-*.service, foo@*`).
        """
        if not flap_restarts.isdecimal() or int(flap_restarts) < 1:
            raise OptionError("flap_restarts", f"{flap_restarts!r} is not a number from 1 up")
        try:
            window = durations.parse(flap_window)
        except ValueError as error:
            raise OptionError("flap_window", str(error)) from error
        if scope not in SCOPES:
            raise OptionError("scope", f"{scope!r} is none of {', '.join(SCOPES)}")
        self._scope = scope
        self._ignored = tuple(pattern.strip() for pattern in ignore.split(",") if pattern.strip())
        self._since = since
        self._directory = directory
        self._source = Source(directory)
        self._tracker = Tracker(flap_restarts=int(flap_restarts), flap_window=window)
        self._cursor = ""
        self._start: Sequence[str] = ()
        self._stored = -STORE_EVERY

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if shutil.which("journalctl") is None:
            return "journalctl is not on PATH"
        places = (self._directory,) if self._directory else JOURNALS
        files = [path for place in places for path in _files(Path(place))]
        if not files:
            return f"no journal in {' or '.join(places)}"
        if not any(os.access(path, os.R_OK) for path in files):
            return f"this user may not read the journal: {JOIN}"
        return None

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        self._start = self._begin(emit)
        self._tell_blindness()
        is_first = True

        def start() -> Sequence[str]:
            nonlocal is_first
            if not is_first and self._cursor:
                self._resume(emit)  # the journal may have been rotated away under a dead journalctl
            is_first = False
            return [f"--after-cursor={self._cursor}"] if self._cursor else self._start

        for entry in self._source.follow(start, report=lambda text: say(f"{self.name}: {text}")):
            self._take(entry, emit)

    def _tell_blindness(self) -> None:
        if self._directory or self._scope == "user":
            return
        system = [path for place in JOURNALS for path in Path(place).glob("*/system*.journal")]
        if system and not any(os.access(path, os.R_OK) for path in system):
            say(f"{self.name}: only this user's own units are seen; for the system's: {JOIN}")

    def _begin(self, emit: Emit) -> Sequence[str]:
        """Restore the position; journalctl's arguments for a start that has no cursor."""
        stored = position.load(self._path())
        try:
            if stored is None:
                return self._first_start()
            self._cursor = stored.cursor
            self._start = ()
            if self._resume(emit):
                self._restore(stored.memory)
            return self._start
        except JournalError as error:
            raise ProducerError(f"journalctl: {error}") from error

    def _resume(self, emit: Emit) -> bool:
        """Whether reading goes on right after the cursor; else the gap is told and jumped."""
        gap = position.find_gap(self._source, self._cursor, now_us=times.now_us())
        if gap is None:
            return True
        self._tell_gap(gap, emit)
        self._cursor, self._start = "", (_since(position.resume_at_us(gap)),)
        return False

    def _first_start(self) -> Sequence[str]:
        if self._since:
            try:
                self._source.ask(f"--since={self._since}")
            except JournalError as error:
                raise OptionError("since", str(error)) from error
            return (f"--since={self._since}",)
        self._cursor = self._source.newest()
        if self._cursor:
            self._store()
        return ()  # an empty journal: whatever comes is new

    def _restore(self, memory: Mapping[str, Any]) -> None:
        try:
            self._tracker.restore(memory)
        except (KeyError, TypeError, ValueError, AttributeError):
            say(
                f"{self.name}: memory in {self._path()} is unreadable; some facts may be told twice"
            )

    def _take(self, entry: Mapping[str, Any], emit: Emit) -> None:
        cursor, at_us = text(entry, "__CURSOR"), number(entry, "__REALTIME_TIMESTAMP") or 0
        news = [finding for finding in self._tracker.see(entry) if self._is_wanted(finding)]
        for finding in news:
            try:
                emit(
                    finding.topic,
                    {**finding.payload, "cursor": cursor},
                    ts_us=at_us,
                    id=ids.derived(at_us // 1000, cursor, finding.topic),
                    component=finding.unit or None,
                )
            except Refused as error:  # sending it again would change nothing: tell, and go on
                say(f"{self.name}: {error}")
        self._cursor = cursor
        if news or time.monotonic() - self._stored > STORE_EVERY:
            self._store()

    def _is_wanted(self, finding: Finding) -> bool:
        if self._scope not in ("all", finding.manager):
            return False
        return not any(fnmatchcase(finding.unit, pattern) for pattern in self._ignored)

    def _tell_gap(self, gap: Gap, emit: Emit) -> None:
        payload: dict[str, Any] = {
            "source": self.name,
            "kind": gap.kind,
            "last_known": gap.cursor or None,
            "first_known": gap.first or None,
            "from_time": None if gap.from_us is None else times.format_us(gap.from_us),
            "to_time": times.format_us(position.time_us(gap.first) or gap.until_us),
        }
        say(f"{self.name}: gap ({gap.kind}), going on {_since(position.resume_at_us(gap))}")
        known = {name: value for name, value in payload.items() if value is not None}
        try:  # one gap, one event, however often it is found before the next entry comes
            emit(
                GAP, known, id=ids.derived((gap.from_us or 0) // 1000, GAP, gap.cursor or gap.first)
            )
        except Refused as error:
            say(f"{self.name}: {error}")

    def _store(self) -> None:
        self._stored = time.monotonic()
        position.store(self._path(), Position(self._cursor, self._tracker.dump()))

    def _path(self) -> Path:
        return Path(paths.state_dir(), "producers", self.name, "cursor")


def _since(us: int) -> str:
    return f"--since=@{us // 1_000_000}"


def _files(place: Path) -> list[Path]:
    return [*place.glob("*.journal"), *place.glob("*/*.journal")]
