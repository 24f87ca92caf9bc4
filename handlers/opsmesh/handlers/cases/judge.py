"""Playing a case: its events through the decision engine, on a clock of its own.

Nothing is run and nothing is written. What is decided here is what the live mesh decides for the
same events at the same times: it is the same `Decider`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opsmesh.handlers.cases import arguments as case_arguments
from opsmesh.handlers.cases.cases import Case
from opsmesh.router.decide import Decision
from opsmesh.router.decider import Decider
from opsmesh.schemas import ids


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What became of one event, or of a time that had come (no `seq`). `at_us` counts from the
    case's start. Without a decision the event was not for this profile."""

    at_us: int
    topic: str
    seq: int | None
    decision: Decision | None


@dataclass(frozen=True, kw_only=True)
class Firing:
    """A run that would start: what its steps would be given, by their ids."""

    at_us: int
    decision: Decision
    events: int
    arguments: dict[str, Any]
    #: By step, its placeholders that have no answer.
    problems: dict[str, list[str]]
    #: Steps whose failure is not the run's.
    lenient: frozenset[str]

    @property
    def broken(self) -> dict[str, list[str]]:
        """The problems for which the run would fail."""
        return {step: found for step, found in self.problems.items() if step not in self.lenient}


@dataclass(frozen=True, kw_only=True)
class Played:
    """All that happened in a case."""

    moments: tuple[Moment, ...]
    firings: tuple[Firing, ...]
    #: Stages that still wait when the clock stops, and until when.
    waiting: tuple[tuple[str, int], ...]

    @property
    def misses(self) -> tuple[Moment, ...]:
        """Decisions not to fire."""
        return tuple(m for m in self.moments if m.decision is not None and not m.decision.fires)


def play(case: Case) -> Played:
    """Decide every event of the case, and every time that comes until its end."""
    decider = Decider(case.profile.rule, host=case.host)
    fired: set[str] = set()
    moments: list[Moment] = []

    def note(seq: int | None, decision: Decision) -> None:
        if decision.outcome == "fire":
            fired.add(decision.event_id)
        at_us = decision.at_us - case.start_us
        moments.append(Moment(at_us=at_us, topic=decision.topic, seq=seq, decision=decision))

    def timers(due: Iterable[Decision]) -> None:
        for decision in due:
            note(None, decision)

    for seq, given in enumerate(case.given, 1):
        timers(decider.advance(given.stored_us))
        event = given.event
        found = decider.decide(event, seq=seq, stored_us=given.stored_us, handled=event.id in fired)
        if found is not None:
            note(seq, found)
            continue
        at_us = given.stored_us - case.start_us
        moments.append(Moment(at_us=at_us, topic=event.topic, seq=seq, decision=None))
    if case.until_us is not None:
        timers(decider.advance(case.until_us))
    else:
        while (due_us := decider.next_due()) is not None:
            timers(decider.advance(due_us))
    return Played(
        moments=tuple(moments),
        firings=tuple(_firings(case, moments)),
        waiting=tuple(
            (name.partition(".")[0], window.due_us - case.start_us)
            for name, window in decider.windows.items()
            if window.due_us is not None
        ),
    )


def _firings(case: Case, moments: Iterable[Moment]) -> Iterator[Firing]:
    for moment in moments:
        decision = moment.decision
        if decision is None or not decision.fires:
            continue
        main = case.given[decision.event_seq - 1]
        view = main.event.view()
        events = [case.given[ref.seq - 1].event.view() for ref in decision.events] or [view]
        run_id = ids.derived(main.stored_us // 1000, case.profile.name, main.event.id, "")
        variables = {
            "event": view,
            "events": events,
            "vars": case.profile.vars,
            "run": {"id": run_id, "attempt": 1},
            "host": case.host,
            "steps": {},
        }
        rendered = {
            step.id: case_arguments.arguments(step, variables) for step in case.profile.steps
        }
        # a collector that has no argument costs its piece of the bundle, not the run
        lenient = frozenset(
            step.id
            for step in case.profile.steps
            if step.action.key == "collect" or step.continue_on_error
        )
        yield Firing(
            at_us=moment.at_us,
            decision=decision,
            events=len(events),
            arguments={step: value for step, (value, _) in rendered.items()},
            problems={step: problems for step, (_, problems) in rendered.items() if problems},
            lenient=lenient,
        )
