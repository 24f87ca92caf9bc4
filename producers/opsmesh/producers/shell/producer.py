"""The shell producer's loop: wait for the shells, read, emit, then remember how far.

It makes the inbox: without it the hooks write nothing. What a line says is told once, however often
it is read, for its event's id is derived from the line's place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Any, Final

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import Refused
from opsmesh.producers.host import say
from opsmesh.producers.memory import Memory
from opsmesh.producers.shell import inbox
from opsmesh.producers.shell.inbox import Line
from opsmesh.producers.shell.line import Failed, parse
from opsmesh.producers.shell.wanted import IGNORE_EXIT, Filter
from opsmesh.producers.watch import Watch
from opsmesh.producers.wiring import PROBED, probed
from opsmesh.router import paths, session
from opsmesh.schemas import ids

#: The shells that there are hooks for.
SHELLS: Final = ("bash", "zsh", "fish")
FAILED: Final = "term.pane.command.failed"
GAP: Final = "mesh.gap.detected"
#: Lines after which the place is stored although more are there.
STORE_EVERY: Final = 200


class Shell:
    """Commands that end badly in an interactive bash, zsh or fish."""

    name = "shell"
    description = "interactive bash, zsh and fish: commands that fail"
    topics: Sequence[str] = (FAILED, GAP)

    def __init__(
        self,
        *,
        ignore_exit: str = IGNORE_EXIT,
        min_duration: str = "0",
        ignore: str = "",
        private: str = "told",
    ) -> None:
        """Options as text.

        Not told are: exit statuses in `ignore_exit`; what took less than `min_duration`; commands
        that one of `ignore` names ("grep") or matches as a whole ("git bisect *"). All are lists
        with commas. `private=dropped`: nor commands whose text is not known, for they began with a
        space; else these are told without it.
        """
        self._filter = Filter.of(
            ignore_exit=ignore_exit, min_duration=min_duration, ignore=ignore, private=private
        )
        self._memory = Memory(self.name)
        self._offsets: dict[str, int] = {}
        self._stored: dict[str, int] = {}
        self._skipped = 0

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if not any(map(shutil.which, SHELLS)):
            return f"none of {', '.join(SHELLS)} is on PATH"
        return None

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        place = inbox.folder()
        remembered = self._memory.load().get("offsets")
        if isinstance(remembered, dict):
            self._offsets = {
                str(name): at for name, at in remembered.items() if isinstance(at, int) and at >= 0
            }
        self._stored = dict(self._offsets)
        paths.private_dir(str(place))
        with Watch(place) as watch:
            while True:
                paths.private_dir(str(place))  # also after somebody has removed it
                if place.stat().st_mode & 0o077:  # a change of its mode would wake us again
                    place.chmod(0o700)
                try:
                    self._drain(emit)
                except FileNotFoundError:
                    continue
                watch.wait()

    def _drain(self, emit: Emit) -> None:
        place = inbox.folder()
        skipped = self._skipped
        unstored = 0
        for line in inbox.lines(place, dict(self._offsets)):
            self._take(line, emit)
            self._offsets[line.file] = line.next
            unstored += 1
            if unstored >= STORE_EVERY:
                self._store()
                unstored = 0
        self._store()
        left = inbox.tidy(place, self._offsets)
        self._offsets = {name: at for name, at in self._offsets.items() if name in left}
        self._store()
        if self._skipped > skipped:
            say(f"{self.name}: {self._skipped} lines in all were cut or none of ours, and skipped")

    def _take(self, line: Line, emit: Emit) -> None:
        failed = parse(line.text)
        if failed is None:
            self._skipped += 1
            return
        if failed.lost:
            self._tell(emit, line, GAP, failed, self._gap(line, failed))
        if self._filter.takes(failed) or PROBED in failed.command:
            self._tell(emit, line, FAILED, failed, _payload(line, failed))

    def _gap(self, line: Line, failed: Failed) -> dict[str, Any]:
        return {
            "source": self.name,
            "kind": "inbox_full",
            "lost": failed.lost,
            "first_known": line.file,
            "message": f"{line.shell} could not write down {failed.lost} failed commands",
        }

    def _tell(
        self, emit: Emit, line: Line, topic: str, failed: Failed, payload: dict[str, Any]
    ) -> None:
        try:
            emit(
                topic,
                payload,
                ts_us=failed.at_us or None,
                id=ids.derived(failed.at_us // 1000, line.file, str(line.at), topic),
                component=line.shell,
                session=session.of_environment(failed.env) or None,
                workspace=session.workspace(
                    failed.cwd, {"HOME": os.environ.get("HOME", ""), **failed.env}
                ),
                **probed(failed.command if topic == FAILED else ""),
                exit_code=failed.exit_code if topic == FAILED else None,
                duration_ms=failed.duration_us / 1000 if topic == FAILED else None,
            )
        except Refused as error:  # sending it again would change nothing: tell, and go on
            say(f"{self.name}: {error}")

    def _store(self) -> None:
        if self._offsets != self._stored:
            self._memory.store({"offsets": self._offsets})
            self._stored = dict(self._offsets)


def _payload(line: Line, failed: Failed) -> dict[str, Any]:
    known = {
        "cwd": failed.cwd,
        "multiplexer": failed.multiplexer,
        "session": failed.session,
        "pane": failed.pane,
        "tty": failed.tty,
    }
    return {
        "command": failed.command,
        "exit_code": failed.exit_code,
        "shell": line.shell,
        "duration_ms": failed.duration_us / 1000,
        **{name: text for name, text in known.items() if text},
    }
