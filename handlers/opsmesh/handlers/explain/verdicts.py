"""A decision, clause by clause: what each one said, and the values that it read.

The clauses that need nothing but the event are asked again, also those that live were not asked any
more: a person wants to know what else stands in the way. Stages speak from the windows on record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from opsmesh.handlers.explain import stage_words
from opsmesh.handlers.explain.conjuncts import conjuncts
from opsmesh.router import clauses
from opsmesh.router.clauses import CLAUSES, Said, Seen
from opsmesh.router.conditions import Expression, Last
from opsmesh.router.decide import Decision
from opsmesh.router.rule import Rule
from opsmesh.router.stages import Item, Stage
from opsmesh.router.topic_patterns import topic_matches
from opsmesh.schemas.envelope import Event

#: Every clause, in the order of an event's way.
ORDER: Final = (
    *(clause.__name__ for clause in CLAUSES),
    "handled",
    *("unless", "correlate", "debounce", "collect", "throttle", "limits"),
    "shadow",
)
#: Outcomes after which the event lies in a window and may still fire.
WAITS: Final = frozenset({"waiting", "collecting", "debounced"})

Answer = Literal["passed", "stopped", "waits", "earlier", "not_asked", "not_set"]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One condition of several that are joined by `&&`; `true` is None when it has no answer."""

    condition: str
    true: bool | None
    reason: str = ""
    values: dict[str, Any] = msgspec.field(default_factory=dict)


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one clause said. `decided` marks the one that the decision names.

    `earlier`: it was asked when the event came, before the time that this decision is about.
    """

    clause: str
    answer: Answer
    text: str
    decided: bool = False
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    parts: tuple[Part, ...] = ()


def verdicts(
    rule: Rule, decision: Decision, event: Event, last: Mapping[Last, Event]
) -> tuple[Verdict, ...]:
    """Every clause of `ORDER`. `event` is the decision's own, `last` what `last(…)` stood for."""
    about = _About(rule, decision, event, last)
    return tuple(about.verdict(clause) for clause in ORDER)


class _About:
    """One decision of one rule."""

    def __init__(
        self, rule: Rule, decision: Decision, event: Event, last: Mapping[Last, Event]
    ) -> None:
        self._rule = rule
        self._decision = decision
        self._stages = {stage.name: stage for stage in rule.stages}
        self._saw = {name.partition(".")[0]: window for name, window in decision.saw.items()}
        self._seen = Seen(
            event=event,
            view=event.view(),
            host=decision.host,
            now_us=decision.at_us,
            last=last,
        )
        clause = {"event": "handled"}.get(decision.clause, decision.clause)
        self._named = clause
        #: Where its way ended; after the last clause for one that fires.
        self._end = len(ORDER)
        if not decision.fires and clause in ORDER:
            self._end = ORDER.index(clause)
        self._answers = clause == "unless" and decision.outcome == "filtered"
        self._by_hand = clause == "trigger"
        timer = (decision.timer or "").partition(".")[0]
        self._begin = ORDER.index(timer) if timer in ORDER else 0

    def verdict(self, clause: str) -> Verdict:
        """What this clause said."""
        index = ORDER.index(clause)
        named = clause == self._named
        if clause in self._stages or clause in ("handled", "shadow"):
            if self._asked(clause, index):
                found = self._late(clause)
                return msgspec.structs.replace(found, decided=named)
            if index < self._begin:
                return Verdict(clause=clause, answer="earlier", text="when the event came")
            return Verdict(clause=clause, answer="not_asked", text="not asked any more")
        pure = next((one for one in CLAUSES if one.__name__ == clause), None)
        if pure is None or (clause == "where" and self._rule.where is None):
            return Verdict(clause=clause, answer="not_set", text="not set")
        if index < self._begin:
            return Verdict(clause=clause, answer="earlier", text="when the event came")
        said = pure(self._rule, self._seen)
        skipped = self._by_hand or (self._answers and clause not in ("state", "run_on"))
        if index > self._end or skipped:
            would = "would have passed" if said is None else f"no as well: {said.reason}"
            return Verdict(clause=clause, answer="not_asked", text=f"not asked; {would}")
        return Verdict(
            clause=clause,
            answer="passed" if said is None else "stopped",
            text=self._pure(clause, said),
            decided=named,
            values=self._values(clause, said),
            parts=tuple(self._parts()) if clause == "where" else (),
        )

    def _asked(self, clause: str, index: int) -> bool:
        if clause in self._stages:
            return clause in self._saw
        if self._answers or self._by_hand:
            return False
        return self._begin <= index <= self._end

    def _late(self, clause: str) -> Verdict:
        """What comes after the clauses that need nothing but the event."""
        decision = self._decision
        if clause == "handled":
            stopped = self._named == "handled"
            text = "it has a run already" if stopped else "no run for this event before"
            return Verdict(clause=clause, answer="stopped" if stopped else "passed", text=text)
        if clause == "shadow":
            if self._rule.state == "shadow":
                text = "in shadow: on record, and without effect"
                return Verdict(clause=clause, answer="stopped", text=text)
            return Verdict(clause=clause, answer="passed", text="not in shadow: it acts")
        stage = self._stages[clause]
        text = self._stage(stage)
        if keyed := stage_words.key(stage, self._seen.view):
            text += f" [{keyed}]"
        values = {path: clauses.field(self._seen.view, path) for path in stage.key}
        answer: Answer = "passed"
        if ORDER.index(clause) == self._end:
            held = decision.outcome in WAITS and not self._dropped(stage)
            answer = "waits" if held else "stopped"
        return Verdict(clause=clause, answer=answer, text=text, values=values)

    def _stage(self, stage: Stage) -> str:
        decision, window = self._decision, self._saw[stage.name]
        if self._answers and stage.name == "unless":
            return decision.reason
        if (decision.timer or "").partition(".")[0] == stage.name and window is not None:
            return stage_words.over(stage, window)
        item = Item(decision.event_id, decision.topic, decision.event_seq, decision.at_us, ())
        return stage_words.arrived(stage, window, item)

    @staticmethod
    def _dropped(stage: Stage) -> bool:
        return stage.name == "debounce" and getattr(stage, "edge", "") == "leading"

    def _pure(self, clause: str, said: Said | None) -> str:
        rule, seen = self._rule, self._seen
        if clause == "where" and rule.where is not None:
            return _truth(said, rule.where)
        if said is not None:
            return said.reason
        if clause == "state":
            return rule.state
        if clause == "run_on":
            wanted = {"origin": "origin, the event's own host", "any": "any host"}
            return f"{wanted.get(rule.run_on, rule.run_on)}; this is {seen.host}"
        if clause == "on":
            pattern = next(p for p in rule.on if topic_matches(p, seen.event.topic))
            return (
                pattern if pattern == seen.event.topic else f"{pattern} covers {seen.event.topic}"
            )
        return f"{seen.event.hops} from the first cause, at most {rule.max_hops}"

    def _values(self, clause: str, said: Said | None) -> dict[str, Any]:
        if clause == "where" and self._rule.where is not None:
            return clauses.read(self._rule.where, self._seen)
        own: dict[str, dict[str, Any]] = {
            "state": {"state": self._rule.state},
            "run_on": {"event.host": self._seen.event.host, "host": self._seen.host},
            "on": {"event.topic": self._seen.event.topic},
            "hops": {"event.hops": self._seen.event.hops},
        }
        return own.get(clause, {})

    def _parts(self) -> Iterator[Part]:
        whole = self._rule.where
        for one in conjuncts(whole) if whole is not None else ():
            said = clauses.unmet(one, self._rule, self._seen)
            unanswered = said is not None and "cannot be answered" in said.reason
            yield Part(
                condition=one.text,
                true=None if unanswered else said is None,
                reason=said.reason.partition(": ")[2] if said and unanswered else "",
                values=clauses.read(one, self._seen),
            )


def _truth(said: Said | None, condition: Expression) -> str:
    if said is None:
        return "true"
    return said.reason.removeprefix(f"{condition.text} is ").removeprefix("the condition ")
