"""Which tools can be wired: entry points of the group `opsmesh.wirings`, ours and strangers' alike.

A plug-in that cannot be imported or made is named in `problems` and skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Final

from opsmesh.producers.errors import ProducerError
from opsmesh.producers.registry import why
from opsmesh.producers.wiring import Wiring

#: The entry point group that wirings register in.
GROUP: Final = "opsmesh.wirings"
_ATTRIBUTES: Final = ("name", "description", "topics", "producer", "missing", "pieces", "after")


@dataclass(frozen=True)
class Found:
    """The wirings that could be made, and for each one that could not, why."""

    wirings: dict[str, Wiring] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def discover() -> Found:
    """Every wiring, in the order of names."""
    found = Found()
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            wiring: Wiring = point.load()()
            for attribute in _ATTRIBUTES:
                if not hasattr(wiring, attribute):
                    raise ProducerError(f"it has no {attribute}")  # noqa: TRY301
            found.wirings[point.name] = wiring
        except Exception as error:  # noqa: BLE001, RUF100 (a stranger's code may raise anything)
            found.problems[point.name] = why(point, error)
    return found
