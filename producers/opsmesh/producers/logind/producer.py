"""The logind producer's loop: hear, merge, emit, then remember.

An event is written down before it is emitted and struck out after, so that a crash in between tells
it again under the same id. The first start tells nothing that was so before.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jeepney.wrappers import DBusErrorResponse

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import ProducerError, Refused
from opsmesh.producers.host import say
from opsmesh.producers.logind import bus as logind
from opsmesh.producers.logind import inbox
from opsmesh.producers.logind.bus import Began, Bus, BusError, Ended, Hint, Session, Signal, Sleep
from opsmesh.producers.logind.locks import HYPRIDLE, Finding, Locks
from opsmesh.producers.memory import Memory
from opsmesh.producers.watch import Watch
from opsmesh.router import paths
from opsmesh.schemas import ids, times

LOCKED: Final = "desktop.idle.locked"

#: Seconds between tries to join a bus that has just changed; then its socket must change again.
JOIN_AGAIN: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: Names this run of the kernel: sessions are numbered anew in the next.
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Logind:
    """Locks and sleep of this user's sessions."""

    name = "logind"
    description = "logind and hypridle: session locked and unlocked, machine asleep and awake"
    topics: Sequence[str] = (LOCKED,)

    def __init__(self) -> None:
        self._memory = Memory(self.name)
        self._locks = Locks()
        self._sessions: dict[str, Session] = {}
        self._inbox = inbox.folder()
        self._bus: Bus | None = None
        self._tries = 0
        self._first = True
        self._remembered: dict[str, Any] = {}

    def available(self) -> str | None:
        """See `contract.Producer`."""
        path = logind.socket_path()
        if path is None or path.exists():
            return None
        return f"no D-Bus system bus at {path}: start dbus, or set DBUS_SYSTEM_BUS_ADDRESS"

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        paths.private_dir(str(self._inbox))
        self._restore(emit)
        socket = logind.socket_path()
        away = [socket] if socket else []
        with _watch(self._inbox) as words, _watch(*away) as daemon:
            self._join(emit)
            self._begun()
            while True:
                self._wait(words, daemon)
                if daemon.wait(0):
                    self._tries = 0
                if self._bus is None:
                    self._join(emit)
                self._read(emit)
                self._hear(emit)

    def _wait(self, words: Watch, daemon: Watch) -> None:
        sources: list[Any] = [words, daemon]
        if self._bus is not None:
            sources.append(self._bus)
        again = JOIN_AGAIN[self._tries] if self._tries < len(JOIN_AGAIN) else None
        select.select(sources, [], [], again if self._bus is None else None)
        words.wait(0)

    def _join(self, emit: Emit) -> None:
        """Join the bus, and compare what logind says with what was known."""
        try:
            self._bus = Bus()
        except (BusError, DBusErrorResponse) as error:
            if self._tries == 0:
                say(f"{self.name}: {error}; waiting for it")
            self._tries += 1
            return
        self._tries = 0
        say(f"{self.name}: on the system bus")
        self._compare(emit)
        self._hear(emit)

    def _leave(self, error: Exception) -> None:
        say(f"{self.name}: {error}")
        if self._bus is not None:
            self._bus.close()
        self._bus = None

    def _compare(self, emit: Emit) -> None:
        if self._bus is None or not self._bus.has_logind:
            return
        try:
            sessions, asleep = self._bus.sessions(), self._bus.preparing_for_sleep()
        except (BusError, DBusErrorResponse) as error:
            self._leave(error)
            return
        self._sessions = {session.path: session for session in sessions}
        self._read(emit)  # what hypridle saw meanwhile was first
        for session in sessions:
            self._tell(
                self._locks.hint(session.id, locked=session.locked, at_us=times.now_us()), emit
            )
        self._tell(self._locks.sleep(self._desktop(), asleep=asleep, at_us=times.now_us()), emit)
        self._remember()

    def _hear(self, emit: Emit) -> None:
        if self._bus is None:
            return
        try:
            for signal in self._bus.signals():
                self._take(signal, emit)
                self._remember()  # a hint that confirms is no news, but known from now on
        except (BusError, DBusErrorResponse) as error:
            self._leave(error)

    def _take(self, signal: Signal, emit: Emit) -> None:
        now_us = times.now_us()
        if isinstance(signal, Hint):
            session = self._sessions.get(signal.path)
            if session is not None:
                found = self._locks.hint(session.id, locked=signal.locked, at_us=now_us)
                self._tell(found, emit)
        elif isinstance(signal, Sleep):
            found = self._locks.sleep(self._desktop(), asleep=signal.asleep, at_us=now_us)
            self._tell(found, emit)
        elif isinstance(signal, Began):
            self._began(signal.path, emit)
        elif isinstance(signal, Ended):
            self._ended(signal.id)
        else:
            self._compare(emit)

    def _began(self, path: str, emit: Emit) -> None:
        session = self._bus.session(path) if self._bus else None
        if session is None:
            return
        self._sessions[path] = session
        found = self._locks.hint(session.id, locked=session.locked, at_us=times.now_us())
        self._tell(found, emit)

    def _ended(self, id: str) -> None:
        for session in list(self._sessions.values()):
            if session.id == id:
                del self._sessions[session.path]
                self._locks.forget(id)

    def _read(self, emit: Emit) -> None:
        """Take what hypridle's commands have left; each word goes once it is told."""
        for word in inbox.words(self._inbox):
            at_us = min(word.at_us, times.now_us())
            session = self._desktop()
            found = self._locks.see(session, HYPRIDLE, locked=word.locked, at_us=at_us)
            self._tell(found, emit)
            with contextlib.suppress(OSError):
                word.path.unlink()

    def _desktop(self) -> str:
        """The session that a compositor has, which does not say so itself: our own, or the one that
        is graphical, or the one at a seat; empty when nobody can tell."""
        known = {session.id: session for session in self._sessions.values()}
        own = os.environ.get("XDG_SESSION_ID", "")
        if own in known:
            return own
        by_rank = sorted(known.values(), key=lambda s: (not s.graphical, not s.seated, s.id))
        return by_rank[0].id if by_rank else self._remembered_desktop()

    def _remembered_desktop(self) -> str:
        """The only session that was known before the bus went away."""
        names = list(self._locks.dump()["locks"])
        return str(names[0]) if len(names) == 1 else ""

    def _tell(self, finding: Finding | None, emit: Emit) -> None:
        if finding is None:
            return
        if self._first:
            return  # it was so before we came
        self._remember(pending=finding)
        self._emit(finding.dump(), emit)
        self._remember()

    def _emit(self, dumped: Mapping[str, Any], emit: Emit) -> None:
        finding = Finding(**dumped)
        parts = (finding.session, finding.state, str(finding.at_us))
        try:
            emit(
                LOCKED,
                finding.payload(),
                ts_us=finding.at_us,
                id=ids.derived(finding.at_us // 1000, self.name, *parts),
                component=finding.session or None,
            )
        except Refused as error:  # sending it again would change nothing: tell, and go on
            say(f"{self.name}: {error}")

    def _begun(self) -> None:
        """From here on, what changes is news."""
        self._first = False
        self._remember()

    def _restore(self, emit: Emit) -> None:
        memory = self._memory.load()
        if memory.get("boot") != _boot():
            return
        try:
            self._locks.restore(memory)
            pending = memory.get("pending")
            if pending:
                self._emit(pending, emit)
        except (KeyError, TypeError, ValueError) as error:
            say(f"{self.name}: {self._memory.path} is unreadable, begins anew: {error}")
            self._locks = Locks()
            return
        self._first = False

    def _remember(self, pending: Finding | None = None) -> None:
        now = {"boot": _boot(), **self._locks.dump()}
        if pending is not None:
            now["pending"] = pending.dump()
        if self._first or now == self._remembered:
            return
        try:
            self._memory.store(now)
            self._remembered = now
        except OSError as error:  # what is told does not depend on it
            say(f"{self.name}: cannot remember what was told: {error}")


def _watch(*watched: Path) -> Watch:
    try:
        return Watch(*watched)
    except OSError as error:  # out of inotify instances or watches
        raise ProducerError(f"cannot watch {', '.join(map(str, watched))}: {error}") from error


def _boot() -> str:
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""
