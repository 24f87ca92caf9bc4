"""Which tools can be wired: entry points of the group `opsmesh.wirings`, ours and strangers' alike.

A plug-in that cannot be imported or made is named in `problems` and skipped. One that raises when
it is asked is broken as well: who asks it here gets a BrokenWiring, whatever it raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from opsmesh.producers.errors import BrokenWiring, OptionError, ProducerError
from opsmesh.producers.install import record as records
from opsmesh.producers.registry import check_options, why
from opsmesh.producers.wiring import Piece, Probe, Probed, Switched, Wiring
from opsmesh.schemas.plugins import entry_points

#: The entry point group that wirings register in.
GROUP: Final = "opsmesh.wirings"
_Answer = TypeVar("_Answer")
_ATTRIBUTES: Final = ("name", "description", "topics", "producer", "missing", "pieces", "after")


@dataclass(frozen=True)
class Found:
    """The wirings that could be made, and for each one that could not, why."""

    wirings: dict[str, Wiring] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def discover(options: Mapping[str, Mapping[str, str]] | None = None) -> Found:
    """Every wiring, in the order of names. `options` are given to those that they name, and are
    otherwise the ones that each was installed with; OptionError for one of `options` alone."""
    found, given = Found(), options or {}
    for point in sorted(entry_points(GROUP), key=lambda point: point.name):
        try:
            factory: Callable[..., Wiring] = point.load()
            chosen = given.get(point.name, _recorded(point.name))
            check_options(point.name, factory, chosen)
            wiring = factory(**chosen)
            for attribute in _ATTRIBUTES:
                if not hasattr(wiring, attribute):
                    raise ProducerError(f"it has no {attribute}")  # noqa: TRY301
            found.wirings[point.name] = wiring
        except OptionError as error:
            if point.name in given:
                raise
            found.problems[point.name] = why(point, error)
        except Exception as error:  # noqa: BLE001, RUF100 (a stranger's code may raise anything)
            found.problems[point.name] = why(point, error)
    return found


def _recorded(name: str) -> Mapping[str, str]:
    try:
        record = records.load(name)
    except ProducerError:  # who asks for the record itself is told
        return {}
    return {} if record is None else record.options


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


def on(name: str, wiring: Wiring) -> list[Sequence[str]]:
    """The commands after its files were written; BrokenWiring, NotNow."""
    if not isinstance(wiring, Switched):
        return []
    return _answer(name, lambda: [*wiring.reload(), *wiring.switch_on()])


def off(name: str, wiring: Wiring) -> tuple[list[Sequence[str]], list[Sequence[str]]]:
    """The commands before its files are taken away, and those after; BrokenWiring."""
    if not isinstance(wiring, Switched):
        return [], []
    return _answer(name, lambda: (list(wiring.switch_off()), list(wiring.reload())))


def _answer(name: str, ask: Callable[[], _Answer]) -> _Answer:
    try:
        return ask()
    except ProducerError:
        raise
    except Exception as error:
        raise BrokenWiring(name, f"{type(error).__name__}: {error}") from error
