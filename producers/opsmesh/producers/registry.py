"""Which producers there are: entry points of the group `opsmesh.producers`.

Ours come in by the same door as a stranger's. A plug-in that cannot be imported or made is named in
`problems` and skipped: it never hides the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint

from opsmesh.producers.contract import Producer
from opsmesh.producers.errors import OptionError, ProducerError, UnknownProducer
from opsmesh.schemas.plugins import entry_points

#: The entry point group that producers register in.
GROUP = "opsmesh.producers"


@dataclass(frozen=True)
class Found:
    """The producers that could be made, and for each one that could not, why."""

    producers: dict[str, Producer] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def discover() -> Found:
    """Every producer, made with its default options, in the order of names."""
    found = Found()
    for point in sorted(entry_points(GROUP), key=lambda point: point.name):
        try:
            found.producers[point.name] = _make(point, {})
        except Exception as error:  # noqa: BLE001, RUF100 (a stranger's code may raise anything)
            found.problems[point.name] = why(point, error)
    return found


def load(name: str, options: Mapping[str, str] | None = None) -> Producer:
    """One producer, made with `options`; UnknownProducer, OptionError or ProducerError."""
    points = {point.name: point for point in entry_points(GROUP)}
    if name not in points:
        raise UnknownProducer(name, points)
    try:
        return _make(points[name], options or {})
    except ProducerError:
        raise
    except Exception as error:
        raise ProducerError(f"producer {name} is broken: {why(points[name], error)}") from error


def _make(point: EntryPoint, options: Mapping[str, str]) -> Producer:
    factory: Callable[..., Producer] = point.load()
    check_options(point.name, factory, options)
    producer = factory(**options)
    for attribute in ("name", "description", "topics", "available", "run"):
        if not hasattr(producer, attribute):
            raise ProducerError(f"{point.value} has no {attribute}")
    return producer


def check_options(name: str, factory: Callable[..., object], options: Mapping[str, str]) -> None:
    """OptionError for one that `factory` does not have: its keyword parameters are its options."""
    parameters = inspect.signature(factory).parameters.values() if options else ()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise OptionError(option, f"unknown; {name} has {', '.join(known) or 'none'}")


def why(point: EntryPoint, error: Exception) -> str:
    """What is wrong with a plug-in, and whose it is."""
    package = f" of {point.dist.name} {point.dist.version}" if point.dist else ""
    return f"{point.value}{package}: {type(error).__name__}: {error}"
