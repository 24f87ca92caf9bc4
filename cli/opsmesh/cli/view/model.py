"""The read model: the mesh as a person looks at it, in plain data. No I/O, no clock.

`top`, the web page and whoever else shows the mesh read the same one. The one rule: it is bounded,
however long somebody looks and however much happens.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opsmesh.cli.health import Health
from opsmesh.cli.hub import health as hub_health
from opsmesh.cli.spool import words as spool_words
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.runs.approvals import Open
from opsmesh.handlers.runs.ledger import Run
from opsmesh.handlers.slo.book import Book
from opsmesh.handlers.slo.objectives import Standing
from opsmesh.router.deadletter import Letter
from opsmesh.schemas.envelope import Event, host_token

#: Events, and runs, that are kept.
EVENTS: Final = 2000
RUNS: Final = 500
#: Sources and hosts that are told apart.
NAMES: Final = 500
#: Seconds for which the rate is known, one figure a second.
SECONDS: Final = 300


@dataclass(frozen=True, kw_only=True)
class SeenEvent:
    """An event where it is stored; `event` is None, with the reason, for bytes that are none."""

    seq: int
    stored_us: int
    subject: str
    event: Event | None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The last word of a source, or of a host, and how many there were since somebody looks."""

    topic: str
    last_us: int
    count: int


@dataclass(frozen=True, kw_only=True)
class ProfileView:
    """A profile, or a candidate beside it, as it stands. `runs` and what follows are those of the
    last week that the profile began by itself."""

    name: str
    kind: str
    state: str
    verdict: str
    detail: str
    fix: str
    waiting: int
    #: Questions of its runs that a person has not answered.
    asking: int = 0
    runs: int = 0
    succeeded: int = 0
    failed: int = 0
    false_positives: int = 0
    last_us: int = 0
    objectives: tuple[Standing, ...] = ()


@dataclass
class View:
    """All of it. `version` grows with each change; whoever shows it compares."""

    keep: int = EVENTS
    #: Whose broker is looked at, and which hosts' events, in words.
    of: str = ""
    version: int = 0
    #: Newest last.
    events: deque[SeenEvent] = field(default_factory=deque)
    #: By run id, the one that changed last at the end.
    runs: dict[str, Run] = field(default_factory=dict)
    profiles: dict[str, ProfileView] = field(default_factory=dict)
    letters: Sequence[Letter] = ()
    approvals: Sequence[Open] = ()
    #: By the `source` of events.
    producers: dict[str, Heard] = field(default_factory=dict)
    hosts: dict[str, Heard] = field(default_factory=dict)
    #: As `opsmesh status` has it; None before the first look.
    health: Health | None = None
    #: Whether the broker answers, and what was last heard of it.
    connected: bool = False
    _per_second: dict[int, int] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """ok, degraded or down; empty before the first look."""
        return self.health.verdict if self.health is not None else ""

    @property
    def problems(self) -> Sequence[dict[str, str]]:
        """What is wrong, each with what mends it."""
        return self.health.problems if self.health is not None else ()

    @property
    def notes(self) -> Sequence[dict[str, Any]]:
        """What was lost, and what a stream removes, each with what can be done: facts, and not the
        verdict."""
        return [*self.health.gaps, *self.health.full] if self.health is not None else ()

    @property
    def facts(self) -> Sequence[tuple[str, str]]:
        """The spool, the agent, and how the hub or its hosts stand, in words by name."""
        if (found := self.health) is None:
            return ()
        lines = [*spool_words.lines(found.spool, found.agent)] if found.spool else []
        parts = (one.partition(" ") for one in (*lines, hub_health.line(found.mesh)))
        return [(name, rest.strip()) for name, _, rest in parts if name]

    @property
    def components(self) -> Sequence[dict[str, Any]]:
        """The processes of this host's mesh."""
        return self.health.components if self.health is not None else ()

    def touch(self) -> None:
        """Something has changed."""
        self.version += 1

    def see(self, seen: SeenEvent, *, live: bool = True) -> None:
        """Take an event in; `live` ones count for the rate."""
        self.events.append(seen)
        while len(self.events) > self.keep:
            self.events.popleft()
        if live:
            second = seen.stored_us // 1_000_000
            self._per_second[second] = self._per_second.get(second, 0) + 1
            if len(self._per_second) > 2 * SECONDS:
                for old in [one for one in self._per_second if one < second - SECONDS]:
                    del self._per_second[old]
        if seen.event is not None:
            _hear(self.producers, seen.event.source, seen)
            _hear(self.hosts, seen.event.host, seen)
        self.touch()

    def run(self, run: Run) -> None:
        """Take a run's record in."""
        self.runs.pop(run.run_id, None)
        self.runs[run.run_id] = run
        while len(self.runs) > RUNS:
            del self.runs[next(iter(self.runs))]
        self.touch()

    def rates(self, now_us: int, *, seconds: int = 60) -> list[int]:
        """Events of each of the last seconds, the one that is not over left out."""
        now = now_us // 1_000_000
        return [self._per_second.get(now - back, 0) for back in range(seconds, 0, -1)]

    def stand(
        self, health: Health, profiles: Iterable[Profile], book: Book, *, host: str, now_us: int
    ) -> None:
        """Take a look at the whole in: how components and profiles are."""
        self.health = health
        known = {profile.name: profile for profile in profiles}
        asking = Counter(one.run.profile for one in self.approvals)
        self.profiles = {
            one["profile"]
            if one["kind"] == "profile"
            else f"{one['profile']} · candidate": _stands(
                one, known.get(one["profile"]), asking, book, host_token(host), now_us
            )
            for one in health.profiles
        }
        self.touch()


def _hear(names: dict[str, Heard], name: str, seen: SeenEvent) -> None:
    assert seen.event is not None  # noqa: S101 (by its only caller)
    known = names.pop(name, None)
    names[name] = Heard(
        topic=seen.event.topic,
        last_us=seen.stored_us,
        count=(known.count if known else 0) + 1,
    )
    if len(names) > NAMES:
        del names[next(iter(names))]


def _stands(
    found: dict[str, Any],
    profile: Profile | None,
    asking: Mapping[str, int],
    book: Book,
    host: str,
    now_us: int,
) -> ProfileView:
    origin = profile is None or profile.run_on == "origin"
    facts = list(book.facts.of(found["profile"], host=host if origin else None))
    objectives: list[Standing] = []
    if profile is not None and profile.slo is not None:
        of = host if origin else None
        objectives = book.standings(profile.name, profile.slo, host=host, of=of, now_us=now_us)
    return ProfileView(
        name=found["profile"],
        kind=found["kind"],
        state=found["state"],
        verdict=found["verdict"],
        detail=found["detail"],
        fix=found.get("fix", ""),
        waiting=found["waiting"],
        asking=asking.get(found["profile"], 0) if found["kind"] == "profile" else 0,
        runs=len(facts),
        succeeded=sum(fact.good is True for fact in facts),
        failed=sum(fact.good is False for fact in facts),
        false_positives=sum(fact.false_positive for fact in facts),
        last_us=max((fact.at_us for fact in facts), default=0),
        objectives=tuple(objectives),
    )
