"""The Hyprland producer's loop: take, compare, emit, then remember.

The first start tells nothing that was so before. Every later one, and every return after the
compositor was away, compares what is in front and the monitors with what was told last.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, Refused
from opsmesh.producers.host import say
from opsmesh.producers.hyprland import request
from opsmesh.producers.hyprland.desk import FOCUS, MONITOR, WORKSPACE, Desk, Finding
from opsmesh.producers.hyprland.instance import runtime_folder
from opsmesh.producers.hyprland.reader import Item, Joined, Left, Reader
from opsmesh.producers.memory import Memory
from opsmesh.schemas import durations, times

RELOADED: Final = "desktop.session.reloaded"
GAP: Final = "mesh.gap.detected"

#: Seconds that a window must keep the focus for to be told.
FOCUS_SETTLE: Final = 0.25
#: Seconds after which the monitors are compared: a reload applies its rules after it told of itself
#: (scheduleRefresh comes before configreloaded, src/config/lua/ConfigManager.cpp).
LAYOUT_SETTLE: Final = 0.5
#: How many times as long a compositor that starts has for bringing up its monitors.
STARTING: Final = 4
#: Seconds between tries to ask a compositor that does not answer; then the next event must come.
ASK_AGAIN: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
TITLES: Final = ("keep", "redact", "omit")

Answer = TypeVar("Answer")


class Hyprland:
    """Workspaces, focus, monitors and reloads of a Hyprland session."""

    name = "hyprland"
    description = "Hyprland: workspaces, window focus, monitors, configuration reloads"
    topics: Sequence[str] = (WORKSPACE, FOCUS, MONITOR, RELOADED, GAP)

    def __init__(
        self,
        *,
        titles: str = "keep",
        focus_settle: str = durations.text(FOCUS_SETTLE),
        layout_settle: str = durations.text(LAYOUT_SETTLE),
        instance: str = "",
    ) -> None:
        """Options as text.

        `titles`: keep, redact or omit window titles; `focus_settle`: how long a window must keep
        the focus for to be told; `layout_settle`: how long after a reload the monitors are
        compared; `instance`: the only instance signature to join.
        """
        if titles not in TITLES:
            raise OptionError("titles", f"{titles!r} is none of {', '.join(TITLES)}")
        if "/" in instance:
            raise OptionError("instance", f"{instance!r} is no instance signature")
        self._desk = Desk(titles=titles, focus_settle=_seconds("focus_settle", focus_settle))
        self._layout_settle = _seconds("layout_settle", layout_settle)
        self._pinned = instance
        self._memory = Memory(self.name)
        self._signature = ""
        self._folder: Path | None = None
        self._left_us: int | None = None
        self._compare_at: float | None = None
        self._look = False
        self._unanswered = 0
        self._malformed = False
        self._remembered: dict[str, Any] = {}

    def available(self) -> str | None:
        """See `contract.Producer`."""
        root = runtime_folder()
        if root is None:
            return "XDG_RUNTIME_DIR is not set: start the agent in the user's session"
        if not root.is_dir() and shutil.which("Hyprland") is None:
            return f"no Hyprland: it is not on PATH, and there is no {root}"
        return None

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        root = runtime_folder()
        assert root is not None, "available() has seen it"  # noqa: S101
        self._restore()
        reader = Reader(root, pinned=self._pinned)
        reader.start()
        try:
            while True:
                self._step(reader, emit)
        finally:
            if reader.malformed:
                say(f"{self.name}: {reader.malformed} lines skipped that were none")

    def _step(self, reader: Reader, emit: Emit) -> None:
        item = reader.feed.get(self._wait())
        if item is None:
            reader.check()
            self._tell(self._desk.settled(time.monotonic()), emit)
        else:
            self._tell(self._desk.settled(item.at), emit)
            self._take(item, emit)
        if lost := reader.feed.lost():
            self._gap(emit, lost=lost, message="the mesh was too slow for the compositor")
        self._compare_when_due(emit)
        if reader.malformed and not self._malformed:
            self._malformed = True
            say(f"{self.name}: skipping lines that are none, like: {reader.example}")

    def _wait(self) -> float | None:
        """Seconds until there is something to do without any line."""
        due = [at for at in (self._desk.due, self._compare_at) if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take(self, item: Item, emit: Emit) -> None:
        if isinstance(item.what, Joined):
            self._joined(item.what.folder, item.at_us, emit)
        elif isinstance(item.what, Left):
            say(f"{self.name}: the compositor ended the connection")
            self._left_us = item.at_us
        elif item.what.event == "configreloaded":
            self._reloaded(item.at_us, emit)
        else:
            event, layout = item.what.event, None
            if event == "monitoraddedv2":
                layout = self._ask(request.monitors)
            if event in ("monitoradded", "monitorremoved"):
                self._compare_in(self._layout_settle)
            found = self._desk.take(item.what, at_us=item.at_us, at=item.at, layout=layout)
            self._tell(found, emit)

    def _joined(self, folder: Path, at_us: int, emit: Emit) -> None:
        known, left_us = self._signature, self._left_us
        self._signature, self._folder, self._left_us = folder.name, folder, None
        self._look, self._unanswered = True, 0
        say(f"{self.name}: joined {folder.name}")
        if known and known != folder.name:
            self._desk.forget()
            self._reloaded(at_us, emit, restarted=True)
            self._compare_in(self._layout_settle * STARTING)
            return
        if left_us is not None:
            self._gap(
                emit,
                from_time=times.format_us(left_us),
                to_time=times.format_us(at_us),
                message="the compositor ended the connection and went on",
            )
        self._compare_in(0)

    def _reloaded(self, at_us: int, emit: Emit, *, restarted: bool = False) -> None:
        payload: dict[str, Any] = {"compositor": self.name}
        if restarted:
            payload["restarted"] = True
        if errors := self._ask(request.config_errors):
            payload["errors"] = errors
        self._tell([Finding(topic=RELOADED, payload=payload, at_us=at_us)], emit)
        self._compare_in(self._layout_settle)

    def _compare_in(self, seconds: float) -> None:
        self._compare_at = time.monotonic() + seconds

    def _compare_when_due(self, emit: Emit) -> None:
        if self._compare_at is None or self._compare_at > time.monotonic():
            return
        self._compare_at = None
        monitors = self._ask(request.monitors)
        if not monitors:  # no answer, or a compositor that has none yet
            if self._unanswered < len(ASK_AGAIN):
                self._compare_in(ASK_AGAIN[self._unanswered])
                self._unanswered += 1
            return
        self._unanswered, now_us = 0, times.now_us()
        if not self._desk.monitors:  # seen for the first time
            self._desk.monitors = dict(monitors)
        self._tell(self._desk.compare(monitors, at_us=now_us), emit)
        if self._look:
            self._look = False
            self._tell(self._desk.look(monitors, at_us=now_us), emit)
        self._remember()

    def _ask(self, question: Callable[[Path], Answer]) -> Answer | None:
        """The answer of the instance; None when it gives none."""
        if self._folder is None:
            return None
        try:
            return question(self._folder)
        except (OSError, ValueError, TypeError) as error:
            say(f"{self.name}: the compositor gives no answer: {error}")
            return None

    def _tell(self, found: Sequence[Finding], emit: Emit) -> None:
        for finding in found:
            try:
                emit(
                    finding.topic,
                    finding.payload,
                    ts_us=finding.at_us,
                    component=finding.component or None,
                    workspace=finding.workspace or None,
                )
            except Refused as error:  # sending it again would change nothing: tell, and go on
                say(f"{self.name}: {error}")
        if any(finding.topic != FOCUS for finding in found):
            self._remember()

    def _gap(self, emit: Emit, **facts: Any) -> None:
        payload = {"source": self.name, "kind": "dropped", **facts}
        say(f"{self.name}: gap: {payload}")
        try:
            emit(GAP, payload)
        except Refused as error:
            say(f"{self.name}: {error}")

    def _restore(self) -> None:
        self._remembered = self._memory.load()
        if not self._remembered:
            return
        try:
            self._desk.restore(self._remembered["desk"])
            self._signature = str(self._remembered["instance"])
        except (KeyError, TypeError, ValueError) as error:
            say(f"{self.name}: {self._memory.path} is unreadable, begins anew: {error}")

    def _remember(self) -> None:
        now = {"instance": self._signature, "desk": self._desk.dump()}
        if now == self._remembered:
            return
        try:
            self._memory.store(now)
            self._remembered = now
        except OSError as error:  # what is told does not depend on it
            say(f"{self.name}: cannot remember what was told: {error}")


def _seconds(option: str, text: str) -> float:
    try:
        return durations.parse(text)
    except ValueError as error:
        raise OptionError(option, str(error)) from error
