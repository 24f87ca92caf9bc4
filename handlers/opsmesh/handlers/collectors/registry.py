"""Which collectors there are: entry points of the group `opsmesh.collectors`.

Ours come in by the same door as a stranger's. A plug-in that cannot be imported, or is no
collector, is named in `problems` and skipped: it never hides the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Final

from pydantic import BaseModel, ValidationError

from opsmesh.handlers.collectors.contract import Collector
from opsmesh.schemas.plugins import entry_points

#: The entry point group that collectors register in.
GROUP: Final = "opsmesh.collectors"
#: What stands beside a collector's word in an item, or beside the items.
COMMON: Final = ("name", "timeout", "max_bytes", "items", "report", "share", "total_bytes")

_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True)
class Found:
    """The collectors by their words, and for each plug-in that is broken, why."""

    collectors: dict[str, type[Collector]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        """Those that may be written as one word: all of their value can be left out."""
        return tuple(key for key, kind in self.collectors.items() if _needs_nothing(kind.spec))


def discover() -> Found:
    """Every collector that can be loaded, in the order of their words."""
    found = Found()
    for point in sorted(entry_points(GROUP), key=lambda point: (point.name, point.value)):
        try:
            found.collectors[point.name] = _load(point, found.collectors)
        except Exception as error:  # noqa: BLE001, RUF100 (a stranger's code may raise anything)
            found.problems[point.name] = _why(point, error)
    return found


def _load(point: EntryPoint, taken: Mapping[str, type[Collector]]) -> type[Collector]:
    kind: type[Collector] = point.load()
    for attribute in ("key", "spec", "collect"):
        if not hasattr(kind, attribute):
            raise TypeError(f"is no collector: it has no {attribute}")
    if kind.key != point.name:
        raise TypeError(f"its key {kind.key!r} is not the entry point's name")
    if not _WORD.fullmatch(point.name) or point.name in COMMON:
        raise TypeError("its key is no word of [a-z0-9_], or one that items have of their own")
    if not (isinstance(kind.spec, type) and issubclass(kind.spec, BaseModel)):
        raise TypeError("its spec is no pydantic model")
    if point.name in taken:
        raise TypeError(f"{taken[point.name].__module__} has this key already")
    return kind


def _needs_nothing(spec: type[BaseModel]) -> bool:
    try:
        spec.model_validate({})
    except ValidationError:
        return False
    return True


def _why(point: EntryPoint, error: Exception) -> str:
    package = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"collector {point.name!r} ({point.value}{package}): {type(error).__name__}: {error}"
