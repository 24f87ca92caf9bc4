"""Which actions there are: entry points of the group `opsmesh.actions`.

Ours come in by the same door as a stranger's. A plug-in that cannot be imported, or is no action,
is named in `problems` and skipped: it never hides the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Final

from opsmesh.handlers.actions.contract import Action
from opsmesh.schemas.plugins import entry_points

#: The entry point group that actions register in.
GROUP: Final = "opsmesh.actions"


@dataclass(frozen=True)
class Found:
    """The actions by key, and for each plug-in that is broken, why."""

    actions: dict[str, type[Action]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def discover() -> Found:
    """Every action that can be loaded, in the order of keys."""
    found = Found()
    for point in sorted(entry_points(GROUP), key=lambda point: (point.name, point.value)):
        try:
            action = _load(point, found.actions)
            found.actions[point.name] = action
            # plug-ins of its own that are broken, as collectors are `collect`'s
            found.problems.update(getattr(action, "problems", {}))
        except Exception as error:  # noqa: BLE001, RUF100 (a stranger's code may raise anything)
            found.problems[point.name] = _why(point, error)
    return found


def _load(point: EntryPoint, taken: Mapping[str, type[Action]]) -> type[Action]:
    action: type[Action] = point.load()
    for attribute in ("key", "parse", "describe", "run"):
        if not hasattr(action, attribute):
            raise TypeError(f"is no action: it has no {attribute}")
    if action.key != point.name:
        raise TypeError(f"its key {action.key!r} is not the entry point's name")
    if point.name in taken:
        raise TypeError(f"{taken[point.name].__module__} has this key already")
    return action


def _why(point: EntryPoint, error: Exception) -> str:
    package = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"action {point.name!r} ({point.value}{package}): {type(error).__name__}: {error}"
