"""The monitors as `j/monitors` tells them, and how two layouts differ. Pure.

Mode, scale and position change without any event on the socket: comparing is the only way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal

Change = Literal["added", "removed", "moved", "reconfigured"]

#: What a mode is made of, and where a monitor stands.
MODE: Final = ("width", "height", "refresh_hz", "scale", "transform")
POSITION: Final = ("x", "y")
#: No number that a monitor has is larger.
LARGEST: Final = 1 << 31


@dataclass(frozen=True)
class Workspace:
    """A workspace: the compositor's number, negative for named and special ones, and the name."""

    id: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """One monitor. What only an event told has no mode."""

    name: str
    id: int | None = None
    description: str | None = None
    width: int | None = None
    height: int | None = None
    refresh_hz: float | None = None
    scale: float | None = None
    transform: int | None = None
    x: int | None = None
    y: int | None = None
    focused: bool = field(default=False, compare=False)
    workspace: Workspace | None = field(default=None, compare=False)
    special: Workspace | None = field(default=None, compare=False)

    def payload(self, change: Change) -> dict[str, Any]:
        """What `desktop.monitor.layout.changed` says of it."""
        facts = {
            "change": change,
            "monitor": self.name,
            "monitor_id": self.id,
            "description": self.description or None,
            **{name: getattr(self, name) for name in (*MODE, *POSITION)},
        }
        return {name: value for name, value in facts.items() if value is not None}

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def read(answer: bytes) -> dict[str, Monitor]:
    """The monitors in the answer to `j/monitors`, by name (getMonitorData,
    src/ipc/s1/Commands.cpp at 6ffae9c). ValueError or TypeError for what is none; a monitor
    that says something odd has less to say."""
    listed = json.loads(answer.decode("utf-8", "replace"))
    if not isinstance(listed, list):
        raise TypeError("j/monitors gave no list")
    monitors = [_monitor(item) for item in listed if isinstance(item, dict)]
    return {monitor.name: monitor for monitor in monitors if monitor.name}


def restore(remembered: Any) -> dict[str, Monitor]:
    """Take back what `Monitor.dump` gave; ValueError or TypeError for anything else."""
    made = {}
    for item in remembered:
        places = {
            key: Workspace(**item[key]) if item.get(key) else None
            for key in ("workspace", "special")
        }
        monitor = Monitor(**{**item, **places})
        made[monitor.name] = monitor
    return made


def differences(
    before: Mapping[str, Monitor], now: Mapping[str, Monitor]
) -> Iterator[tuple[Change, Monitor]]:
    """What came, went, and changed; a monitor with a new mode that moved, too, is one change."""
    for name in before.keys() - now.keys():
        yield "removed", before[name]
    for name, monitor in now.items():
        if name not in before:
            yield "added", monitor
        elif changed(before[name], monitor, MODE):
            yield "reconfigured", monitor
        elif changed(before[name], monitor, POSITION):
            yield "moved", monitor


def changed(before: Monitor, now: Monitor, facts: tuple[str, ...]) -> bool:
    """Whether one of the facts is another one; what was not known before has not changed."""
    pairs = ((getattr(before, name), getattr(now, name)) for name in facts)
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def completed(monitor: Monitor, by: Monitor | None) -> Monitor:
    """A monitor that an event told, with what a layout knows of it."""
    if by is None:
        return monitor
    return replace(by, id=monitor.id, description=monitor.description or by.description)


def _monitor(item: Mapping[str, Any]) -> Monitor:
    return Monitor(
        name=_of(item, "name", str) or "",
        id=_of(item, "id", int),
        description=_of(item, "description", str),
        width=_of(item, "width", int),
        height=_of(item, "height", int),
        refresh_hz=_rounded(item, "refreshRate"),
        scale=_rounded(item, "scale"),
        transform=_of(item, "transform", int),
        x=_of(item, "x", int),
        y=_of(item, "y", int),
        focused=item.get("focused") is True,
        workspace=_workspace(item.get("activeWorkspace")),
        special=_workspace(item.get("specialWorkspace")),
    )


def _of(item: Mapping[str, Any], key: str, kind: type) -> Any:
    value = item.get(key)
    if kind is int and type(value) is int and abs(value) > LARGEST:
        return None
    return value if type(value) is kind else None


def _rounded(item: Mapping[str, Any], key: str) -> float | None:
    value = item.get(key)
    if not isinstance(value, int | float) or not abs(value) < LARGEST:  # NaN is not less, either
        return None
    return round(float(value), 3)


def _workspace(item: Any) -> Workspace | None:
    """None where nothing is shown: no special workspace has an empty name and the id 0."""
    if not isinstance(item, dict) or type(item.get("id")) is not int:
        return None
    name = item.get("name")
    return Workspace(item["id"], name) if isinstance(name, str) and name else None
