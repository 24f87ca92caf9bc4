"""What several lines say together: what is in front, what has the focus, and what of it is news.

Reads no clock: each line comes with the time it was read at. A window is only focused once it has
kept the focus for a while; the last one wins, and one that was passed through is no event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from opsmesh.producers.hyprland.layout import (
    Change,
    Monitor,
    Workspace,
    completed,
    differences,
    restore,
)
from opsmesh.producers.hyprland.lines import Line

WORKSPACE: Final = "desktop.workspace.changed"
FOCUS: Final = "desktop.window.focus.changed"
MONITOR: Final = "desktop.monitor.layout.changed"

#: What a title that is not to be read is replaced with.
REDACTED: Final = "[redacted:title]"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact to emit."""

    topic: str
    payload: dict[str, Any]
    at_us: int
    component: str = ""
    workspace: str = ""


@dataclass(frozen=True)
class Front:
    """What is in front: a workspace, where, and whether it is a special one."""

    id: int
    name: str
    monitor: str | None
    special: bool = False


@dataclass(frozen=True, kw_only=True)
class Focus:
    """A window that has the focus and may lose it again before `due` (monotonic)."""

    window_class: str
    title: str
    address: str
    at_us: int
    due: float


class Desk:
    """The state of one user's desk, and the news that lines and layouts bring."""

    def __init__(self, *, titles: str, focus_settle: float) -> None:
        self.front: Front | None = None
        self.monitors: dict[str, Monitor] = {}
        self._titles = titles
        self._settle = focus_settle
        self._monitor: str | None = None
        self._regular: dict[str, Workspace] = {}
        self._named: tuple[str, str] | None = None
        self._window: tuple[str, str] | None = None
        self._pending: Focus | None = None
        self._focused: str | None = None

    def take(
        self, line: Line, *, at_us: int, at: float, layout: Mapping[str, Monitor] | None = None
    ) -> list[Finding]:
        """The news in a line that was read at `at_us`, `at` on the monotonic clock. `layout`: what
        the compositor says of its monitors now, for a monitor that comes."""
        fields = line.fields
        match line.event:
            case "workspacev2":
                return self._show(Front(int(fields[0]), fields[1], self._monitor), at_us)
            case "renameworkspace":
                self._rename(int(fields[0]), fields[1])
            case "focusedmon":
                self._named = (fields[0], fields[1])
            case "focusedmonv2":
                return self._look_at(fields[0], int(fields[1]), at_us)
            case "activespecialv2":
                return self._special(*fields, at_us=at_us)
            case "moveworkspacev2":
                return [self._moved(*fields, at_us=at_us)]
            case "monitoraddedv2" | "monitorremovedv2":
                told = Monitor(name=fields[1], id=int(fields[0]), description=fields[2] or None)
                if line.event == "monitorremovedv2":
                    return self._gone(told, at_us)
                return self._came(told, layout or {}, at_us)
            case "activewindow":
                self._window = (fields[0], fields[1])
            case "activewindowv2":
                self._focus(fields[0], at_us, at)
        return []

    @property
    def due(self) -> float | None:
        """When `settled` has something to say."""
        return self._pending.due if self._pending else None

    def settled(self, at: float) -> list[Finding]:
        """The window that has kept the focus until `at`, if it is news."""
        focus = self._pending
        if focus is None or focus.due > at:
            return []
        self._pending, self._focused = None, focus.address
        payload: dict[str, Any] = {"window_class": focus.window_class}
        if self._titles != "omit" and focus.title:
            payload["title"] = focus.title if self._titles == "keep" else REDACTED
        if focus.address:
            payload["address"] = focus.address
        return [
            Finding(
                topic=FOCUS,
                payload=payload,
                at_us=focus.at_us,
                component=focus.window_class,
                workspace=self.front.name if self.front else "",
            )
        ]

    def compare(self, monitors: Mapping[str, Monitor], *, at_us: int) -> list[Finding]:
        """What of this layout is news."""
        found = [
            _layout(change, monitor, at_us)
            for change, monitor in differences(self.monitors, monitors)
        ]
        self.monitors = dict(monitors)
        return found

    def look(self, monitors: Mapping[str, Monitor], *, at_us: int) -> list[Finding]:
        """What of the workspace that this layout has in front is news."""
        for monitor in monitors.values():
            if monitor.workspace:
                self._regular[monitor.name] = monitor.workspace
            if monitor.focused:
                self._monitor = monitor.name
        known, seen = self.front is not None, monitors.get(self._monitor or "")
        if seen is None or not (shown := seen.special or seen.workspace):
            return []
        news = self._show(Front(shown.id, shown.name, seen.name, bool(seen.special)), at_us)
        return news if known else []  # what is seen first has not changed

    def forget(self) -> None:
        """Another compositor: its windows are others, and so are its workspaces."""
        self._pending = self._focused = self._window = self._named = None
        self._regular.clear()

    def dump(self) -> dict[str, Any]:
        """What is known, as JSON values."""
        return {
            "front": asdict(self.front) if self.front else None,
            "monitors": [monitor.dump() for monitor in self.monitors.values()],
        }

    def restore(self, remembered: Mapping[str, Any]) -> None:
        """Take back what `dump` gave; KeyError, TypeError or ValueError for anything else."""
        front = Front(**remembered["front"]) if remembered["front"] else None
        self.monitors = restore(remembered["monitors"])
        self.front, self._monitor = front, front.monitor if front else None

    def _show(self, front: Front, at_us: int) -> list[Finding]:
        if not front.special and front.monitor:
            self._regular[front.monitor] = Workspace(front.id, front.name)
        before, self.front = self.front, front
        if before and _same(before, front):
            return []
        payload = {
            "workspace": front.name,
            "workspace_id": front.id,
            "monitor": front.monitor,
            "special": True if front.special else None,
            "previous": before.name if before else None,
        }
        return [
            Finding(
                topic=WORKSPACE,
                payload={name: value for name, value in payload.items() if value is not None},
                at_us=at_us,
                workspace=front.name,
            )
        ]

    def _look_at(self, monitor: str, workspace: int, at_us: int) -> list[Finding]:
        """Another monitor. The name of its workspace is in `focusedmon`, which comes right before
        (rawMonitorFocus, src/desktop/state/FocusState.cpp)."""
        self._monitor, named, self._named = monitor, self._named, None
        known = self._regular.get(monitor)
        if known and known.id == workspace:
            name = known.name
        elif named and named[0] == monitor and named[1] not in ("", "?"):
            name = named[1]
        else:
            return []
        return self._show(Front(workspace, name, monitor), at_us)

    def _special(self, id: str, name: str, monitor: str, *, at_us: int) -> list[Finding]:
        if id and name:
            return self._show(Front(int(id), name, monitor, special=True), at_us)
        hidden = self.front and self.front.special and self.front.monitor == monitor
        regular = self._regular.get(monitor)
        if not hidden or regular is None:
            return []
        return self._show(Front(regular.id, regular.name, monitor), at_us)

    def _rename(self, id: int, name: str) -> None:
        for monitor, workspace in self._regular.items():
            if workspace.id == id:
                self._regular[monitor] = Workspace(id, name)
        if self.front and self.front.id == id:
            self.front = Front(id, name, self.front.monitor, self.front.special)

    def _moved(self, id: str, name: str, monitor: str, *, at_us: int) -> Finding:
        if self.front and self.front.id == int(id):  # it is still in front, elsewhere
            self.front = Front(int(id), name, monitor, self.front.special)
        payload = {"change": "moved", "monitor": monitor, "workspace": name}
        return Finding(
            topic=MONITOR, payload=payload, at_us=at_us, component=monitor, workspace=name
        )

    def _came(self, told: Monitor, layout: Mapping[str, Monitor], at_us: int) -> list[Finding]:
        monitor = completed(told, layout.get(told.name))
        before, self.monitors[told.name] = self.monitors.get(told.name), monitor
        if before is None:
            return [_layout("added", monitor, at_us)]
        # a compositor that starts adds what was there before it, too
        one = differences({told.name: before}, {told.name: monitor})
        return [_layout(change, monitor, at_us) for change, monitor in one]

    def _gone(self, told: Monitor, at_us: int) -> list[Finding]:
        self._regular.pop(told.name, None)
        self.monitors.pop(told.name, None)
        return [_layout("removed", told, at_us)]

    def _focus(self, address: str, at_us: int, at: float) -> None:
        window, self._window = self._window, None
        if window is None:
            return  # half of a pair: the other half was lost
        if address == self._focused:
            self._pending = None  # its title changed, or the focus came back
            return
        same = self._pending if self._pending and self._pending.address == address else None
        self._pending = Focus(
            window_class=window[0],
            title=window[1],
            address=address,
            at_us=same.at_us if same else at_us,
            due=same.due if same else at + self._settle,
        )


def _same(before: Front, now: Front) -> bool:
    """Whether nothing else is in front; a monitor that was not known is no other one."""
    where = before.monitor is None or before.monitor == now.monitor
    return where and (before.id, before.name, before.special) == (now.id, now.name, now.special)


def _layout(change: Change, monitor: Monitor, at_us: int) -> Finding:
    return Finding(
        topic=MONITOR, payload=monitor.payload(change), at_us=at_us, component=monitor.name
    )
