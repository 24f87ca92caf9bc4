"""The Zellij producer's loop: wait for a change, look, emit what is another, remember.

Only what is there is compared with what is remembered, so it makes no difference whether this
process was there in between, nor how many notices of the kernel came.
"""

from __future__ import annotations

import select
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, Refused
from opsmesh.producers.host import say
from opsmesh.producers.memory import Memory
from opsmesh.producers.watch import Watch
from opsmesh.producers.zellij import changes
from opsmesh.producers.zellij.changes import Change, Remembered
from opsmesh.producers.zellij.places import Places
from opsmesh.producers.zellij.sessions import Seen, Sessions
from opsmesh.schemas import durations, ids, times

#: Seconds of quiet that end a change of layout: dragging a border is one.
DEBOUNCE: Final = 0.3
#: Seconds after which a look is taken although it has not become quiet.
AT_MOST: Final = 2.0
#: Seconds until a socket where nobody listened is looked at again: it is bound before it is
#: listened at.
AGAIN: Final = (0.05, 0.5)


class Zellij:
    """Zellij's sessions, their layout, and command panes whose command failed."""

    name = "zellij"
    description = "Zellij: sessions that start and end, layouts, failed command panes"
    topics: Sequence[str] = (changes.STARTED, changes.ENDED, changes.LAYOUT, changes.FAILED)

    def __init__(
        self, *, sockets: str = "", cache: str = "", debounce: str = durations.text(DEBOUNCE)
    ) -> None:
        """Options as text.

        `sockets` and `cache`: Zellij's folders, where this process has not the same environment as
        Zellij; `debounce`: how long a layout must be quiet before it is told.
        """
        for option, value in (("sockets", sockets), ("cache", cache)):
            if value and not Path(value).is_absolute():
                raise OptionError(option, f"{value!r} is no absolute path")
        try:
            self._debounce = durations.parse(debounce)
        except ValueError as error:
            raise OptionError("debounce", str(error)) from error
        self._told = bool(sockets or cache)
        self._places = Places.here(sockets=sockets, cache=cache)
        self._sessions = Sessions(self._places)
        self._memory = Memory(self.name)
        self._remembered: dict[str, Any] = {}

    def available(self) -> str | None:
        """See `contract.Producer`. Where Zellij was used, or the user says where it is, its sockets
        are waited for; it need not be on PATH."""
        places = (self._places.sockets, self._places.cache)
        if self._told or shutil.which("zellij") or any(place.exists() for place in places):
            return None
        return f"zellij is not on PATH, and there is no {places[0]}"

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        stored = self._memory.load().get("sessions")
        self._remembered = dict(stored) if isinstance(stored, dict) else {}
        watched: tuple[Path, ...] = ()
        watch = Watch(*watched)
        again = list(AGAIN)
        try:
            while True:
                seen = self._sessions.look()
                if watched != (watched := self._paths(seen)):
                    watch.close()
                    watch = Watch(*watched)
                    continue  # what happened before the new watch was there
                self._tell(seen, emit)
                unsure = seen.dead and again
                if self._wait(watch, again.pop(0) if unsure else None):
                    again = list(AGAIN)
        finally:
            watch.close()
            self._sessions.close()

    def _paths(self, seen: Seen) -> tuple[Path, ...]:
        """What to watch: the folders of sockets, and what is written of each session."""
        contracts = [self._places.sockets / contract for contract in self._places.contracts()]
        written = [self._places.metadata(s.contract, s.name) for s in seen.alive.values()]
        return (self._places.sockets, *contracts, *sorted(written))

    def _wait(self, watch: Watch, timeout: float | None) -> bool:
        """Return after a change, once it is quiet; False after `timeout` seconds without one."""
        if not self._something(watch, timeout):
            return False
        latest = time.monotonic() + max(AT_MOST, self._debounce)
        while self._something(watch, min(self._debounce, max(0.0, latest - time.monotonic()))):
            if time.monotonic() >= latest or any(p.gone() for p in self._sessions.servers()):
                break
        return True

    def _something(self, watch: Watch, timeout: float | None) -> bool:
        any_of: list[Any] = [watch, *self._sessions.servers()]
        ready, _, _ = select.select(any_of, [], [], timeout)
        return any(one is not watch for one in ready) or (watch in ready and watch.wait(0))

    def _tell(self, seen: Seen, emit: Emit) -> None:
        told, remembered = changes.changes(self._remembered, seen, now_us=times.now_us())
        for change in told:
            self._emit(change, emit)
        if remembered != self._remembered:
            self._store(remembered)

    def _emit(self, change: Change, emit: Emit) -> None:
        id = ids.derived(change.born_ms, *change.parts) if change.parts else None
        try:
            emit(
                change.topic,
                change.payload,
                ts_us=change.at_us,
                id=id,
                component=change.session,
                session=f"zellij:{change.session}",
                exit_code=change.payload.get("exit_code"),
            )
        except Refused as error:  # sending it again would change nothing: tell, and go on
            say(f"{self.name}: {error}")

    def _store(self, remembered: Remembered) -> None:
        self._remembered = remembered
        try:
            self._memory.store({"sessions": remembered})
        except OSError as error:
            say(f"{self.name}: cannot note what it has told: {error}")
