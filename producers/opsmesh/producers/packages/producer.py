"""The packages producer: reads what was written to the logs, tells it, and remembers how far.

A log is noted up to its last transaction that is told, so that one whose end is still to come is
read again from its begin after a restart. Its first start begins at the end: what was installed
years ago is no news.
"""

from __future__ import annotations

import re
import select
import shutil
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, ProducerError, Refused
from opsmesh.producers.host import say
from opsmesh.producers.memory import Memory
from opsmesh.producers.packages import audit
from opsmesh.producers.packages.advisories import Found, Vulnerability
from opsmesh.producers.packages.audit import Audit, AuditError
from opsmesh.producers.packages.follower import Follower
from opsmesh.producers.packages.transaction import Transaction
from opsmesh.producers.watch import Watch
from opsmesh.schemas import durations, ids, times

TRANSACTION: Final = "package.txn.completed"
VULNERABLE: Final = "package.vuln.detected"
GAP: Final = "mesh.gap.detected"
#: Where pacman says that its log is elsewhere (pacman.conf(5), LogFile).
PACMAN_CONF: Final = Path("/etc/pacman.conf")
PACMAN_LOG: Final = Path("/var/log/pacman.log")
APT_LOG: Final = Path("/var/log/apt/history.log")
#: The file that a package manager's hook touches. Only root may make something in its folder: root
#: would follow a link that a user had put there.
KICK: Final = Path("/run/opsmesh/packages")
#: Seconds without a transaction before the audit asks: an upgrade is often several.
SETTLE: Final = 10.0
#: Seconds until a tool that failed is asked again: first; each time twice as long. Right after the
#: boot there may be no network yet.
RETRY: Final = 300.0

#: A log is read once it was quiet for so many seconds, or at the latest after GATHER_MOST: a large
#: upgrade writes a line for each package.
GATHER: Final = 0.1
GATHER_MOST: Final = 2.0


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
        since: str = "",
        vuln_every: str = "24h",
        vuln_options: str = "",
        kick: str = str(KICK),
    ) -> None:
        """Options as text.

        `since`: where the first start begins, `all`, an age (`7d`) or a date; else at the end;
        `vuln_every`: how often to ask what is vulnerable, 0 for never; `vuln_options`: arguments
        for the tool instead of ours; `kick`: the file that the hooks touch.
        """
        paths = {
            "pacman": Path(pacman_log) if pacman_log else _pacman_log(),
            "apt": Path(apt_log),
        }
        since_us = _since(since)
        self._followers = {
            manager: Follower(manager, path, since_us=since_us) for manager, path in paths.items()
        }
        try:
            self._vuln_every = durations.parse(vuln_every)
        except ValueError as error:
            raise OptionError("vuln_every", str(error)) from error
        self._vuln_options = vuln_options.split()
        self._kick = Path(kick)
        self._memory = Memory(self.name)
        #: Keys of the vulnerabilities that the last answer had.
        self._known: list[str] = []
        #: When the answer came that is being told; 0: none is.
        self._pending_ms = 0
        self._audited = 0.0
        self._audit: Audit | None = None
        self._audit_at: float | None = None
        self._retry = RETRY
        self._complained = ""

    def available(self) -> str | None:
        """See `contract.Producer`."""
        here = [follower for follower in self._followers.values() if self._is_here(follower)]
        if not here:
            return "neither pacman nor apt is here"
        closed = [reason for reason in (follower.closed() for follower in here) if reason]
        return "; ".join(closed) if len(closed) == len(here) else None

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        followers = [follower for follower in self._followers.values() if self._is_here(follower)]
        watched = [path for follower in followers for path in follower.log.watched()]
        try:
            watch = Watch(*watched, self._kick)
        except OSError as error:
            hint = "see fs.inotify.max_user_instances and fs.inotify.max_user_watches"
            raise ProducerError(f"inotify: {error}; {hint}") from error
        try:
            self._restore()
            while True:
                for follower in followers:
                    self._follow(follower, emit)
                self._mind_audit(emit)
                self._wait(watch)
        finally:
            watch.close()
            self._end_audit()
            self._store()

    def _is_here(self, follower: Follower) -> bool:
        """Whether the log is there, or may come with the first transaction."""
        program = "pacman" if follower.manager == "pacman" else "apt-get"
        return follower.exists() or shutil.which(program) is not None

    def _wait(self, watch: Watch) -> None:
        """Until a log or an audit has something to say, or an audit's time has come."""
        sources: list[Any] = [watch] if self._audit is None else [watch, self._audit]
        ready, _, _ = select.select(sources, [], [], self._patience())
        if watch in ready and watch.wait(0):
            gathered = time.monotonic() + GATHER_MOST
            while time.monotonic() < gathered and watch.wait(GATHER):
                pass

    def _patience(self) -> float | None:
        if self._audit is not None:
            return max(0.0, self._audit.deadline - time.monotonic())
        return None if self._audit_at is None else max(0.0, self._audit_at - time.time())

    def _restore(self) -> None:
        stored = self._memory.load()
        logs = stored.get("logs")
        for manager, follower in self._followers.items():
            follower.restore(logs.get(manager) if isinstance(logs, dict) else None)
        known, audited = stored.get("vulnerable"), stored.get("audited")
        pending = stored.get("pending_ms")
        self._known = [str(key) for key in known] if isinstance(known, list) else []
        self._audited = float(audited) if isinstance(audited, int | float) else 0.0
        self._pending_ms = pending if isinstance(pending, int) else 0
        if self._vuln_every and audit.tool():
            self._audit_at = self._audited + self._vuln_every
        self._store()

    def _follow(self, follower: Follower, emit: Emit) -> None:
        """Tell what the log holds and was not told."""

        def tell(found: Transaction, event_id: str) -> None:
            self._tell(found, event_id, emit)

        def tell_gap(gap: dict[str, Any], event_id: str) -> None:
            say(f"{self.name}: {gap['message']}")
            self._emit(emit, GAP, gap, id=event_id, component=follower.manager)

        try:
            follower.look(tell, tell_gap)
        except OSError as error:
            self._complain(f"{follower.log.path}: {error.strerror or error}")
            return
        if follower.moved:
            self._store()

    def _complain(self, text: str) -> None:
        """Say it, once: it is found again at each look."""
        if text != self._complained:
            self._complained = text
            say(f"{self.name}: {text}")

    def _tell(self, transaction: Transaction, event_id: str, emit: Emit) -> None:
        at = transaction.at
        self._emit(
            emit,
            TRANSACTION,
            transaction.payload(),
            severity=None if transaction.outcome == "completed" else "warn",
            ts_us=times.parse_us(at) if at else times.now_us(),
            id=event_id,
            component=transaction.manager,
        )
        if self._vuln_every and audit.tool():
            self._audit_at = time.time() + SETTLE

    def _mind_audit(self, emit: Emit) -> None:
        """Begin an audit whose time has come; take the answer of one that is under way."""
        try:
            if self._audit is None:
                self._begin_audit()
                return
            found = self._answer(self._audit)
        except AuditError as error:
            say(f"{self.name}: not audited, which does not mean clean: {error}")
            self._end_audit()
            self._audit_at = time.time() + min(self._retry, self._vuln_every)
            self._retry *= 2
            return
        if found is not None:
            self._end_audit()
            self._retry = RETRY
            self._tell_vulnerable(found, emit)

    def _begin_audit(self) -> None:
        if self._audit_at is None or time.time() < self._audit_at:
            return
        name = audit.tool()
        self._audit_at = None if name is None else time.time() + self._vuln_every
        if name is not None:
            self._audit = Audit(name, self._vuln_options)

    def _answer(self, under_way: Audit) -> Found | None:
        if time.monotonic() >= under_way.deadline:
            under_way.expired()
        ready, _, _ = select.select([under_way], [], [], 0)
        return under_way.read() if ready else None

    def _end_audit(self) -> None:
        if self._audit is not None:
            self._audit.close()
            self._audit = None

    def _tell_vulnerable(self, found: Found, emit: Emit) -> None:
        """Tell what is new. After a crash in between it is told again, with the same ids."""
        if found.odd:
            say(f"{self.name}: {found.odd} parts of the answer are not understood")
        known = {*self._known}
        keys = {one.key: one for one in found.vulnerabilities}
        if news := [one for key, one in keys.items() if key not in known]:
            self._pending_ms = self._pending_ms or times.now_us() // 1000
            self._store()
            for one in news:
                self._tell_one(one, emit)
        # what an answer lacks that is not understood as a whole may be in what was not
        self._known = sorted({*keys, *(known if found.odd else ())})
        self._audited, self._pending_ms = time.time(), 0
        self._store()

    def _tell_one(self, one: Vulnerability, emit: Emit) -> None:
        vuln_id = ids.derived(self._pending_ms, VULNERABLE, one.key)
        self._emit(emit, VULNERABLE, one.payload(), id=vuln_id, component=one.package)

    def _emit(self, emit: Emit, topic: str, payload: dict[str, Any], **more: Any) -> None:
        try:
            emit(topic, payload, **more)
        except Refused as error:  # sending it again would change nothing
            say(f"{self.name}: {error}")

    def _store(self) -> None:
        """Write it down. A disk that is full keeps nobody from being told."""
        remembered = {
            "logs": {manager: one.dump() for manager, one in self._followers.items()},
            "vulnerable": self._known,
            "pending_ms": self._pending_ms,
            "audited": self._audited,
        }
        try:
            self._memory.store(remembered)
        except OSError as error:
            say(f"{self.name}: nothing can be remembered: {error}")


def _since(text: str) -> int | None:
    """Microseconds since the epoch; None for the end of the log."""
    if not text:
        return None
    if text == "all":
        return 0
    try:
        return times.now_us() - int(durations.parse(text) * 1e6)
    except ValueError:
        pass
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1e6)
    except (ValueError, OverflowError) as error:
        raise OptionError("since", f"{text!r} is not all, an age like 7d, or a date") from error


def _pacman_log() -> Path:
    try:
        text = PACMAN_CONF.read_text("utf-8", "replace")
    except OSError:
        return PACMAN_LOG
    found = re.search(r"^\s*LogFile\s*=\s*(\S.*?)\s*$", text, re.MULTILINE)
    return Path(found[1]) if found else PACMAN_LOG
