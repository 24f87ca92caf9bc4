"""What a producer knows of each source that it watches, from before, and what it is about to tell.

An event is written down with its id and the state that it leads to before it is emitted: after a
crash in between it is emitted again under the same id, and nothing is found a second time.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import Refused
from opsmesh.producers.host import say
from opsmesh.producers.memory import Memory
from opsmesh.router import paths
from opsmesh.schemas import ids, times


@dataclass(frozen=True, kw_only=True)
class News:
    """One event that is to be told."""

    topic: str
    payload: Mapping[str, Any]
    component: str
    workspace: str
    severity: str | None = None


class Remembered:
    """The memory of the producer `name`; a source is known by its key."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._memory = Memory(name)
        loaded = self._memory.load()
        sources = loaded.get("sources")
        self._sources: dict[str, dict[str, Any]] = {
            key: dict(kept)
            for key, kept in (sources.items() if isinstance(sources, dict) else ())
            if isinstance(kept, dict)
        }
        self._pending = loaded.get("pending")

    def facts(self, key: str) -> Mapping[str, Any]:
        """What was kept of a source; empty for one that has never been seen."""
        return self._sources.get(key, {})

    def keep(self, key: str, **facts: Any) -> None:
        """Remember facts of a source with the next `store` or `tell`."""
        self._sources.setdefault(key, {}).update(facts)

    def bound(self, most: int, fact: str) -> None:
        """Let go of all sources but `most`, those with the lowest number as `fact` first."""
        known = {key: kept.get(fact) for key, kept in self._sources.items()}
        numbers = {key: one if isinstance(one, int | float) else 0 for key, one in known.items()}
        order = sorted(numbers, key=lambda key: numbers[key])
        for key in order[: max(0, len(order) - most)]:
            del self._sources[key]

    def resume(self, emit: Emit) -> None:
        """Emit what an earlier life may have been stopped in."""
        pending, self._pending = self._pending, None
        if not isinstance(pending, dict):
            return
        try:
            self._emit(pending, emit)
        except (KeyError, TypeError, AttributeError):
            say(f"{self._name}: {self._memory.path} is unreadable, one event may be missing")
        self.store()

    def tell(self, news: News, emit: Emit) -> None:
        """Emit an event, exactly once, with what was kept since the last call."""
        event = {
            "id": ids.uuid7(),
            "ts_us": times.now_us(),
            "topic": news.topic,
            "payload": dict(news.payload),
            "component": news.component,
            "workspace": news.workspace,
            "severity": news.severity,
        }
        self.store(event)
        self._emit(event, emit)
        self.store()

    def store(self, pending: Mapping[str, Any] | None = None) -> None:
        """Write it down. A disk that is full keeps nobody from being told."""
        try:
            self._memory.store({"sources": self._sources, "pending": pending})
        except OSError as error:
            say(f"{self._name}: nothing can be remembered: {error}")

    def _emit(self, event: Mapping[str, Any], emit: Emit) -> None:
        more = {name: event[name] for name in event if name not in ("topic", "payload")}
        try:
            emit(event["topic"], event["payload"], **more)
        except Refused as error:
            say(f"{self._name}: {error}")


@contextmanager
def shared(name: str) -> Iterator[Remembered]:
    """The memory of a producer that commands write to as well: one of them at a time, and each
    reads it anew."""
    path = Memory(name).path.with_suffix(".lock")
    paths.private_dir(str(path.parent))
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Remembered(name)
