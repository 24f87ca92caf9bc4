"""What an extension cannot tell of itself: that it was not activated, or that its host died.

It stands outside of VS Code, so that it is still there when the host is not. A host's process is
followed by a pidfd, its logs by inotify: nothing is polled, and VS Code does not wait for us.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import Refused
from opsmesh.producers.host import say
from opsmesh.producers.memory import Memory
from opsmesh.producers.vscode import hosts, logs, places
from opsmesh.producers.vscode.hosts import ExtensionHost
from opsmesh.producers.vscode.logs import Tail
from opsmesh.producers.watch import Watch
from opsmesh.schemas import ids, times

CRASHED: Final = "editor.extension.crashed"
#: Seconds that VS Code has to write down how a host ended, or to end itself; and that an error has
#: to follow the line that announces it.
GRACE: Final = 2.0
LATE: Final = 1.0
#: Seconds between two looks, except at a host's end: VS Code may log a thousand lines a second.
GAP: Final = 0.1
#: Logs whose place is remembered; those of windows that are gone are the oldest.
MOST: Final = 200


@dataclass
class _Followed:
    host: ExtensionHost
    pidfd: int | None
    tails: list[Tail]
    #: When it was seen to be gone, and when half a failure was seen in a log.
    gone: float | None = None
    half: float | None = None


class VSCode:
    """Extensions and extension hosts that die."""

    name = "vscode"
    description = "VS Code: extensions that cannot be activated, extension hosts that die"
    topics: Sequence[str] = (CRASHED,)

    def __init__(self) -> None:
        self._folder = places.hosts()
        self._memory = Memory(self.name)
        self._places: dict[str, list[int]] = {}
        self._followed: dict[Path, _Followed] = {}

    def available(self) -> str | None:
        """See `contract.Producer`. Once the extension was installed, or has run, it is waited
        for."""
        if self._folder.is_dir() or places.vsix().exists():
            return None
        return "the extension has not been installed: opsmesh install vscode"

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        stored = self._memory.load().get("logs")
        self._places = dict(stored) if isinstance(stored, dict) else {}
        watched: tuple[Path, ...] = ()
        watch = Watch(*watched)
        try:
            while True:
                self._look()
                self._tell(emit)
                if watched != (watched := self._paths()):
                    watch.close()
                    watch = Watch(*watched)
                    continue  # what happened before the new watch was there
                self._wait(watch)
        finally:
            watch.close()
            for one in self._followed.values():
                self._let_go(one)

    def _look(self) -> None:
        """Follow who is new; who has taken leave is followed no more."""
        found = hosts.look(self._folder)
        for path in self._followed.keys() - found.keys():
            self._let_go(self._followed.pop(path))
        for path, host in found.items():
            if path in self._followed:
                continue
            if host.here():
                self._followed[path] = _Followed(host, host.open(), self._tails(host))
            elif host.boot_id != hosts.boot_id():
                hosts.forget(host)  # the machine was started anew

    def _tails(self, host: ExtensionHost) -> list[Tail]:
        """Its logs, from where they were read last."""
        if not host.logs.startswith("/"):
            return []
        paths = [Path(host.logs, name) for name in logs.OF_HOST]
        shared = {tail.path: tail for one in self._followed.values() for tail in one.tails}
        return [shared.get(path) or self._tail(path) for path in paths]

    def _tail(self, path: Path) -> Tail:
        place = self._places.get(str(path), [])
        if [type(one) for one in place] != [int, int]:
            return Tail(path)
        return Tail(path, identity=place[0], offset=place[1])

    def _paths(self) -> tuple[Path, ...]:
        tails = {tail.path for one in self._followed.values() for tail in one.tails}
        ends = {
            path
            for one in self._followed.values()
            if one.gone is not None
            for path in logs.end_logs(Path(one.host.logs))
        }
        return (self._folder, *sorted(tails | ends))

    def _wait(self, watch: Watch) -> None:
        """Until something may have changed, or somebody's time is over."""
        alive = [one.pidfd for one in self._followed.values() if one.pidfd is not None]
        until = [
            began + limit
            for one in self._followed.values()
            for began, limit in ((one.gone, GRACE), (one.half, LATE))
            if began is not None
        ]
        select.select(alive, [], [], GAP)
        left = max(0.0, min(until) - time.monotonic()) if until else None
        any_of: list[Any] = [watch, *alive]
        ready, _, _ = select.select(any_of, [], [], left)
        if watch in ready:
            watch.wait(0)

    def _tell(self, emit: Emit) -> None:
        before = {path: list(place) for path, place in self._places.items()}
        for one in list(self._followed.values()):
            if one.gone is None and not self._runs(one):
                one.gone = time.monotonic()
            self._failures(one, emit)
            if one.gone is not None and self._end(one, emit):
                self._let_go(one)
                self._followed.pop(one.host.path)
                hosts.forget(one.host)
        if before != self._places:
            self._store()

    def _runs(self, one: _Followed) -> bool:
        if one.pidfd is None:
            return False
        poll = select.poll()
        poll.register(one.pidfd, select.POLLIN)
        if not poll.poll(0):
            return True
        self._let_go(one)
        return False

    def _failures(self, one: _Followed, emit: Emit) -> None:
        late = one.gone is not None or (
            one.half is not None and time.monotonic() - one.half >= LATE
        )
        half = False
        for tail in one.tails:
            while True:
                before = tail.offset
                for failure in tail.read(last=late):
                    self._emit(
                        emit,
                        one.host,
                        {
                            "extension": failure.extension,
                            "message": failure.message,
                            "log_path": str(tail.path),
                        },
                        ts_us=failure.at_us or None,
                        id=ids.derived(
                            failure.at_us // 1000,
                            "vscode",
                            str(tail.path),
                            str(tail.identity),
                            str(failure.offset),
                        ),
                        component=failure.extension,
                    )
                if tail.offset == before:
                    break
            if tail.identity:
                self._note(tail)
            half |= tail.pending
        one.half = (one.half or time.monotonic()) if half else None

    def _end(self, one: _Followed, emit: Emit) -> bool:
        """Whether all is known of a host that is gone; then it has been told."""
        host, gone = one.host, one.gone or 0.0
        if not host.path.exists():
            return True  # it took its leave just now
        found = logs.end_of(host.pid, Path(host.logs)) if host.logs.startswith("/") else None
        alone = host.parent_lives()
        if found is None and alone and time.monotonic() - gone < GRACE:
            return False
        # without a log's word: when VS Code is gone too, it has ended as a whole
        orderly = found.orderly if found is not None else not alone
        if not orderly:
            text = found.text if found is not None else "the extension host's process is gone"
            payload = {
                "message": text,
                "exit_code": found.exit_code if found is not None else None,
                "signal": found.signal if found is not None else None,
                "log_path": str(found.path) if found is not None else None,
            }
            id = ids.derived(host.path.stat().st_mtime_ns // 1_000_000, *self._named(host))
            self._emit(emit, host, payload, ts_us=times.now_us(), id=id, component="extension host")
        return True

    def _named(self, host: ExtensionHost) -> tuple[str, ...]:
        return ("vscode", host.boot_id, str(host.pid), host.start)

    def _emit(
        self,
        emit: Emit,
        host: ExtensionHost,
        payload: dict[str, Any],
        *,
        ts_us: int | None,
        id: str,
        component: str,
    ) -> None:
        known = {name: value for name, value in payload.items() if value is not None}
        try:
            emit(
                CRASHED,
                {**known, "editor": "vscode"},
                ts_us=ts_us,
                id=id,
                component=component,
                session=host.session,
                workspace=host.workspace,
                exit_code=payload.get("exit_code"),
            )
        except Refused as error:  # sending it again would change nothing: tell, and go on
            say(f"{self.name}: {error}")

    def _note(self, tail: Tail) -> None:
        self._places.pop(str(tail.path), None)
        self._places[str(tail.path)] = [tail.identity, tail.offset]
        while len(self._places) > MOST:
            self._places.pop(next(iter(self._places)))

    def _store(self) -> None:
        try:
            self._memory.store({"logs": self._places})
        except OSError as error:
            say(f"{self.name}: cannot note what it has told: {error}")

    def _let_go(self, one: _Followed) -> None:
        if one.pidfd is not None:
            os.close(one.pidfd)
        one.pidfd = None
