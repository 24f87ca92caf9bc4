"""The registry: every topic that this mesh knows, and the checks that need it.

Our own topics come in by the same door as a stranger's: the entry points `opsmesh.topics`. A topic
that cannot be read is named in `problems` and left out; it never stops the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from opsmesh.schemas.envelope import Event
from opsmesh.schemas.fit import coerce as coerce_payload
from opsmesh.schemas.fit import coerce_version, fit
from opsmesh.schemas.nearest import nearest
from opsmesh.schemas.plugins import entry_points
from opsmesh.schemas.topics import Topic
from opsmesh.schemas.upcast import upcast, version_of

__all__ = ["ENTRY_POINTS", "Registry", "Topic", "load_registry"]

#: The entry point group; each point is one Topic or an iterable of them.
ENTRY_POINTS: Final = "opsmesh.topics"
#: The point of our own topics.
BUILT_IN: Final = "opsmesh.schemas.payloads:TOPICS"


class Registry:
    """Topics by name. `problems` says what was left out and why, one text each."""

    def __init__(self, topics: Iterable[Topic] = ()) -> None:
        self.problems: list[str] = []
        self._topics: dict[str, Topic] = {}
        for topic in topics:
            self.add(topic)

    def add(self, topic: Topic) -> None:
        """Register one more topic; ValueError for a name that is taken, or an example that does
        not fit."""
        if topic.name in self._topics:
            owner = self._topics[topic.name].owner
            raise ValueError(f"topic {topic.name} is already registered, owner {owner}")
        if version_of(topic, topic.example) != topic.version:
            raise ValueError(f"{topic.name}: the example is not of version {topic.version}")
        fit(topic, topic.example)
        self._topics[topic.name] = topic

    def get(self, name: str) -> Topic | None:
        """The topic, or None."""
        return self._topics.get(name)

    def is_registered(self, name: str) -> bool:
        """Whether the name is known."""
        return name in self._topics

    def nearest(self, name: str) -> str | None:
        """The registered name most like a misspelt one."""
        return nearest(name, self._topics)

    def __iter__(self) -> Iterator[Topic]:
        return iter(sorted(self._topics.values(), key=lambda topic: topic.name))

    def __len__(self) -> int:
        return len(self._topics)

    def check(
        self, topic: str, payload: dict[str, Any], *, coerce: bool = False
    ) -> dict[str, Any] | None:
        """The payload to store; PayloadError when it does not fit the topic's type.

        The payload comes back as it is, or, with `coerce`, with its strings made what the type
        wants. None: the topic is not registered, and nothing was checked. A payload of an older
        version is checked in today's form and stays as it is; one of a newer version, which we
        cannot know, is not checked.
        """
        known = self._topics.get(topic)
        if known is None:
            return None
        if coerce:
            payload = coerce_version(payload)
        version = version_of(known, payload)
        if version == known.version and coerce:
            return coerce_payload(known, payload)
        if version <= known.version:
            fit(known, upcast(known, payload))
        return payload

    def upcast(self, event: Event) -> Event:
        """The event with today's payload; the same object when nothing is to be done."""
        known = self._topics.get(event.topic)
        if known is None or known.version == 1:
            return event
        payload = upcast(known, event.payload)
        if payload is event.payload:
            return event
        return msgspec.structs.replace(event, payload=payload)


def load_registry(user_file: Path | None = None) -> Registry:
    """The topics of all entry points, then those of the user's YAML file where it exists."""
    registry = Registry()
    # Ours first, then by name: which of two topics of one name is registered must not depend on
    # the order of sys.path.
    points = entry_points(ENTRY_POINTS)
    for point in sorted(points, key=lambda p: (p.value != BUILT_IN, p.name, p.value)):
        package = point.dist.name if point.dist else "unknown package"
        source = f"topics plug-in {point.name!r} ({package}, {point.value})"
        try:
            loaded = point.load()
            found = [loaded] if isinstance(loaded, Topic) else list(loaded)
        except Exception as error:  # a stranger's module may raise anything
            registry.problems.append(f"{source}: {type(error).__name__}: {error}")
            continue
        for topic in found:
            _add(registry, topic, source)
    if user_file is not None and user_file.exists():
        from opsmesh.schemas.topics_file import read  # PyYAML, only where there is a file

        found_in_file, problems = read(user_file)
        registry.problems += problems
        for where, topic in found_in_file:
            _add(registry, topic, where)
    return registry


def _add(registry: Registry, topic: Any, source: str) -> None:
    if not isinstance(topic, Topic):
        registry.problems.append(f"{source}: expected a Topic, got {type(topic).__name__}")
        return
    try:
        registry.add(topic)
    except ValueError as error:
        registry.problems.append(f"{source}: {error}")
