"""Which tools can be wired: entry points of the group `opsmesh.wirings`, ours and strangers' alike.

A plug-in that cannot be imported or made is named in `problems` and skipped. One that raises when
it is asked is broken as well: who asks it here gets a BrokenWiring, whatever it raised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Final, TypeVar

from opsmesh.producers.errors import BrokenWiring, ProducerError
from opsmesh.producers.registry import why
from opsmesh.producers.wiring import Piece, Probe, Probed, Wiring

#: The entry point group that wirings register in.
GROUP: Final = "opsmesh.wirings"
_Answer = TypeVar("_Answer")
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


def missing(name: str, wiring: Wiring) -> str | None:
    """Why the tool cannot be wired here; BrokenWiring."""
    return _answer(name, wiring.missing)


def pieces(name: str, wiring: Wiring) -> Sequence[Piece]:
    """What should be there; BrokenWiring."""
    return _answer(name, lambda: list(wiring.pieces()))


def after(name: str, wiring: Wiring) -> str:
    """What is left for the user to do; BrokenWiring."""
    return _answer(name, wiring.after)


def probes(name: str, wiring: Wiring) -> Sequence[Probe] | None:
    """How it can be tried, None when it cannot; BrokenWiring."""
    return _answer(name, lambda: list(wiring.probes())) if isinstance(wiring, Probed) else None


def _answer(name: str, ask: Callable[[], _Answer]) -> _Answer:
    try:
        return ask()
    except ProducerError:
        raise
    except Exception as error:
        raise BrokenWiring(name, f"{type(error).__name__}: {error}") from error
