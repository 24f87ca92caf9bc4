"""The packages producer: reads what was written to the logs, tells it, and remembers how far.

A log is noted up to its last transaction that is told, so that one whose end is still to come is
read again from its begin after a restart. Its first start begins at the end: what was installed
years ago is no news.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, Refused
from opsmesh.producers.host import say
from opsmesh.producers.memory import Memory
from opsmesh.producers.packages import audit, tail
from opsmesh.producers.packages.apt import Apt
from opsmesh.producers.packages.audit import AuditError, Vulnerability
from opsmesh.producers.packages.pacman import Pacman
from opsmesh.producers.packages.tail import Log, Place
from opsmesh.producers.packages.transaction import Parser, Transaction
from opsmesh.producers.watch import Watch
from opsmesh.router import paths
from opsmesh.schemas import durations, ids, times

TRANSACTION: Final = "package.txn.completed"
VULNERABLE: Final = "package.vuln.detected"
GAP: Final = "mesh.gap.detected"
#: Where pacman says that its log is elsewhere (pacman.conf(5), LogFile).
PACMAN_CONF: Final = Path("/etc/pacman.conf")
PACMAN_LOG: Final = Path("/var/log/pacman.log")
APT_LOG: Final = Path("/var/log/apt/history.log")
#: Seconds without a transaction before the audit asks: an upgrade is often several.
SETTLE: Final = 10.0

#: A log is read once it was quiet for so many seconds, or at the latest after GATHER_MOST: a large
#: upgrade writes a line for each package.
GATHER: Final = 0.1
GATHER_MOST: Final = 2.0


def kicks() -> Path:
    """The folder in which a package manager's hook may touch a file."""
    return Path(paths.runtime_dir(), "packages")


class Packages:
    """See `contract.Producer`."""

    name = "packages"
    description = "pacman's and apt's transactions, and packages known to be vulnerable"
    topics: Sequence[str] = (TRANSACTION, VULNERABLE, GAP)

    def __init__(
        self,
        *,
        pacman_log: str = "",
        apt_log: str = str(APT_LOG),
        vuln_every: str = "24h",
        vuln_options: str = "",
    ) -> None:
        self._logs: dict[str, Log] = {
            "pacman": Log(Path(pacman_log) if pacman_log else _pacman_log()),
            "apt": Log(Path(apt_log)),
        }
        try:
            self._vuln_every = durations.parse(vuln_every)
        except ValueError as error:
            raise OptionError("vuln_every", str(error)) from error
        self._vuln_options = vuln_options.split()
        self._memory = Memory(self.name)
        self._places: dict[str, Place] = {}
        #: Keys of what is told, by the time of the last answer that had them.
        self._known: list[str] = []
        self._audited = 0.0
        self._recent: deque[str] = deque(maxlen=64)
        self._audit_at: float | None = None

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if any(log.path.exists() for log in self._logs.values()):
            return None
        if shutil.which("pacman") or shutil.which("apt-get"):
            return None  # its log comes with its first transaction
        return "neither pacman nor apt is here"

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        paths.private_dir(str(kicks()))
        watched = [log.path for log in self._logs.values()]
        with Watch(*watched, kicks()) as watch:
            self._restore()
            while True:
                for manager in self._logs:
                    self._follow(manager, emit)
                if self._audit_at is not None and time.time() >= self._audit_at:
                    self._audit(emit)
                if watch.wait(self._patience()):
                    gathered = time.monotonic() + GATHER_MOST
                    while time.monotonic() < gathered and watch.wait(GATHER):
                        pass

    def _restore(self) -> None:
        stored = self._memory.load()
        places = stored.get("places", {})
        for manager, log in self._logs.items():
            place = Place.restore(places.get(manager)) if isinstance(places, dict) else None
            self._places[manager] = place or log.end()
        known, audited = stored.get("vulnerable"), stored.get("audited")
        self._known = [str(key) for key in known] if isinstance(known, list) else []
        self._audited = float(audited) if isinstance(audited, int | float) else 0.0
        if self._vuln_every and audit.tool():
            self._audit_at = self._audited + self._vuln_every
        self._store()

    def _patience(self) -> float | None:
        return None if self._audit_at is None else max(0.0, self._audit_at - time.time())

    def _follow(self, manager: str, emit: Emit) -> None:
        """Tell what the log holds and was not told."""
        log, place = self._logs[manager], self._places[manager]
        files = log.files(place)
        if files is None:
            self._tell_gap(manager, emit)
            files = [(log.path, Place())]
        parser: Parser = Pacman() if manager == "pacman" else Apt()
        end = place
        try:
            for path, start in files:
                for line in tail.read(path, start):
                    if (found := parser.feed(line.text)) is not None:
                        self._tell(found, emit)
                    end = line.place
                    if parser.resting:
                        place = end
        except (OSError, EOFError) as error:  # rotated away under our hands, or not for us to read
            say(f"{self.name}: {path}: {error}")
            return
        if len(files) > 1 and not parser.open:
            place = end
        if place != self._places[manager]:
            self._places[manager] = place
            self._store()

    def _tell(self, transaction: Transaction, emit: Emit) -> None:
        payload = transaction.payload()
        facts = json.dumps(payload, sort_keys=True)
        at = transaction.completed_at or transaction.started_at
        at_us = times.parse_us(at) if at else times.now_us()
        event_id = ids.derived(at_us // 1000 if at else 0, TRANSACTION, facts)
        if event_id in self._recent:  # read again, because one after it has not ended yet
            return
        self._recent.append(event_id)
        try:
            emit(
                TRANSACTION,
                payload,
                severity=None if transaction.outcome == "completed" else "warn",
                ts_us=at_us,
                id=event_id,
                component=transaction.manager,
            )
        except Refused as error:
            say(f"{self.name}: {error}")
        if self._vuln_every and audit.tool():
            self._audit_at = time.time() + SETTLE

    def _tell_gap(self, manager: str, emit: Emit) -> None:
        log, place = self._logs[manager], self._places[manager]
        say(f"{self.name}: {log.path} was rotated, and what was not read yet is gone")
        try:
            emit(
                GAP,
                {"source": self.name, "kind": "rotated_away", "last_known": str(place.offset)},
                id=ids.derived(0, GAP, manager, place.before),
                component=manager,
            )
        except Refused as error:
            say(f"{self.name}: {error}")

    def _audit(self, emit: Emit) -> None:
        tool = audit.tool()
        self._audit_at = None if tool is None else time.time() + self._vuln_every
        if tool is None:
            return
        try:
            found = audit.ask(tool, self._vuln_options)
        except AuditError as error:
            say(f"{self.name}: not audited, which does not mean clean: {error}")
            return
        known = {*self._known}
        for one in found:
            if one.key not in known:
                self._tell_vulnerable(one, emit)
        self._known = sorted({one.key for one in found})
        self._audited = time.time()
        self._store()

    def _tell_vulnerable(self, one: Vulnerability, emit: Emit) -> None:
        try:
            emit(
                VULNERABLE,
                one.payload(),
                id=ids.derived(0, VULNERABLE, one.key),
                component=one.package,
            )
        except Refused as error:
            say(f"{self.name}: {error}")

    def _store(self) -> None:
        places = {manager: place.dump() for manager, place in self._places.items()}
        self._memory.store({"places": places, "vulnerable": self._known, "audited": self._audited})


def _pacman_log() -> Path:
    try:
        text = PACMAN_CONF.read_text("utf-8", "replace")
    except OSError:
        return PACMAN_LOG
    found = re.search(r"^\s*LogFile\s*=\s*(\S.*?)\s*$", text, re.MULTILINE)
    return Path(found[1]) if found else PACMAN_LOG
