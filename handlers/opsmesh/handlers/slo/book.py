"""What the stream, or the archive, says of runs and of objectives: from both the same figures."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
from nats.aio.client import Client

from opsmesh.handlers.evidence import reader
from opsmesh.handlers.slo import facts
from opsmesh.handlers.slo.facts import Facts
from opsmesh.handlers.slo.objectives import HOUR_US, Policy, Standing, standing
from opsmesh.router.scan import events, opened, scan
from opsmesh.router.topology import EVENTS
from opsmesh.schemas.envelope import Event, decode, host_token
from opsmesh.schemas.errors import SchemaError

#: How topics of ours begin; what follows is the verdict that is told.
CHANGED: Final = "automation.slo."
#: The topics that a book is made of.
SUBJECTS: Final = (*facts.TOPICS, f"{CHANGED}>")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The newest that was told of an objective: `id` of the event, when it was stored, and whether
    the profile was held back then."""

    verdict: str = "recovered"
    id: str = "first"
    at_us: int = 0
    did: str = ""


class Book:
    """What the stream says, of runs and of ourselves."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._told: dict[tuple[str, str, str], Told] = {}

    def add(self, event: Event, stored_us: int) -> bool:
        """Take an event in; whether it may change how a profile stands."""
        if not event.topic.startswith(CHANGED):
            return self.facts.add(event, stored_us)
        key = (
            host_token(event.host),
            str(event.payload.get("profile")),
            str(event.payload.get("objective")),
        )
        self._told[key] = Told(
            verdict=event.topic.removeprefix(CHANGED),
            id=event.id,
            at_us=stored_us,
            did=str(event.payload.get("did") or ""),
        )
        return False

    def told(self, host: str, profile: str, objective: str) -> Told:
        """Of one objective; that it is kept, before anything was told."""
        return self._told.get((host, profile, objective), Told())

    def standings(
        self, profile: str, policy: Policy, *, host: str, of: str | None, now_us: int
    ) -> list[Standing]:
        """How a profile stands by what `host` has told of it; `of`: with the runs of that host
        alone. Runs from before it was held back do not count."""
        held = [self.told(host, profile, one.name) for one in policy.objectives]
        since_us = max((one.at_us for one in held if one.did), default=0)
        runs = [fact for fact in self.facts.of(profile, host=of) if fact.at_us > since_us]
        return [standing(one, runs, policy=policy, now_us=now_us) for one in policy.objectives]


async def of_stream(client: Client, *, since_us: int) -> Book:
    """What the stream has since then."""
    book = Book()
    subjects = [f"evt.*.{topic}" for topic in SUBJECTS]
    async for event, stored_us in events(client, subjects, since_us=since_us):
        book.add(event, stored_us)
    return book


async def followed(
    client: Client, *, since_us: int, host: str = "*"
) -> AsyncIterator[tuple[Book, bool]]:
    """What the stream has since then of `host` (a token of a subject), once all of it is read: a
    part of the past is not how a profile stands. From then on the same book after each event, and
    whether that may change how a profile stands."""
    book, whole = Book(), False
    subjects = [f"evt.{host}.{topic}" for topic in SUBJECTS]
    async for msg in scan(client, EVENTS, subjects=subjects, since_us=since_us, follow=True):
        one = opened(msg)
        changes = one.event is not None and book.add(one.event, one.stored_us)
        if whole or one.pending == 0:
            yield book, changes or not whole
            whole = True


def of_archive(folder: Path, *, since_us: int) -> Book:
    """What the archive has since then; no broker is asked."""
    book = Book()
    for item in reader.read(folder, since_us=since_us, topics=SUBJECTS):
        with contextlib.suppress(SchemaError):
            book.add(decode(item.data, stored=(item.stream, item.seq, item.time_us)), item.time_us)
    return book


def described(one: Standing) -> dict[str, Any]:
    """A standing as plain values, as events and documents have it; what nobody knows is None."""
    objective = one.objective
    hour = one.burn.get(HOUR_US)
    return {
        "objective": objective.name,
        "target": round(objective.target, 6),
        "good": None if one.good is None else round(one.good, 6),
        "runs": one.runs,
        "bad": one.bad,
        "budget_left": _finite(one.left),
        "burn_rate_1h": _finite(hour),
        "within_ms": objective.within_us / 1e3 if objective.within_us else None,
        "value_ms": None if one.value_us is None else one.value_us / 1e3,
    }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: of no budget at all, nothing can be said."""
    return None if value is None or value in (float("inf"), float("-inf")) else round(value, 4)
