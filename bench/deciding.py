"""The decision engine alone, in memory: no broker, no disk, one core."""

from __future__ import annotations

import time

from figure import Figure
from lab import HOST, Lab
from opsmesh.router.conditions import Expression
from opsmesh.router.decider import Decider
from opsmesh.router.rule import Rule
from opsmesh.router.stages import Debounce
from opsmesh.schemas.envelope import Event, decode
from samples import TOPIC, messages

RULES = {
    "engine_miss": (
        "no match: a CEL condition is false",
        Rule(
            name="measured",
            hash="",
            on=(TOPIC,),
            where=Expression('event.payload.tool == "mypy" && event.payload.count > 0'),
            run_on="any",
        ),
    ),
    "engine_match": (
        "a match: three CEL clauses are true",
        Rule(
            name="measured",
            hash="",
            on=(TOPIC,),
            where=Expression(
                'event.payload.tool == "ruff" && event.payload.count > 0'
                ' && event.payload.path.startsWith("src/")'
            ),
            run_on="any",
        ),
    ),
    "engine_debounce": (
        "a debounce of 97 keys",
        Rule(
            name="measured",
            hash="",
            on=(TOPIC,),
            debounce=Debounce(window_us=60_000_000, key=("payload.path",)),
            run_on="any",
        ),
    ),
}


async def engine(lab: Lab) -> list[Figure]:
    """Decisions a second of events that are decoded already."""
    amount = lab.amount(20_000)
    events = [decode(message.data) for message in messages(amount)]
    return [
        Figure(
            name=name,
            what=what,
            unit="decisions/s",
            ours=[_rate(rule, events) for _ in range(lab.rounds)],
            details={"events_a_round": amount},
        )
        for name, (what, rule) in RULES.items()
    ]


def _rate(rule: Rule, events: list[Event]) -> float:
    decider = Decider(rule, host=HOST)
    began = time.perf_counter()
    for number, event in enumerate(events):
        at_us = number * 1000
        for _ in decider.advance(at_us):
            pass
        decider.decide(event, seq=number, stored_us=at_us)
        decider.take_changes()
    return len(events) / (time.perf_counter() - began)
