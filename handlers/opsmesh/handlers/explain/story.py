"""A story: the events of one correlation, what profiles made of each, and the runs in between."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence, Set

import msgspec
from nats.aio.client import Client

from opsmesh.handlers.explain.answers import Answer, Explainer, Finding
from opsmesh.handlers.explain.lookup import Place
from opsmesh.handlers.explain.mentions import mentions
from opsmesh.handlers.runs.ledger import Ledger, Run
from opsmesh.schemas.envelope import decode
from opsmesh.schemas.errors import SchemaError


class Ambiguous(Exception):
    """An id's beginning that several begin with."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(f"{number} ids begin with {text}; write more of it")


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    """One event, the firings that it is about or held in, and what did not fire when asked for.

    `runs` are those whose decision is not on record; `triggered` those that a step or a button had
    run because of it, with an event that is in no stream.
    """

    place: Place
    firings: tuple[Finding, ...] = ()
    misses: tuple[Answer, ...] = ()
    runs: tuple[Run, ...] = ()
    triggered: tuple[Run, ...] = ()


async def tell(
    client: Client, explainer: Explainer, text: str, *, misses: bool = False
) -> tuple[str, list[Chapter]]:
    """The correlation id behind an event's, a run's or a correlation's id, and its events in order.

    An event's and a run's id may be given by their beginning; Ambiguous when that is too short.
    """
    runs = [run async for run in Ledger(client).runs()]
    correlation = await _correlation(explainer, runs, text)
    places = await explainer.lookup.story(correlation)
    if not places:
        return correlation, []
    said = await mentions(client, places)
    triggered = _triggered(runs, correlation, {place.event.id for place in places})
    chapters = []
    shown: set[str] = set()
    for place in places:
        answers = await explainer.answers(place, said[place.event.id]) if misses else ()
        firings = [
            await explainer.finding(place, mention)
            for mention in said[place.event.id]
            if mention.record.decision.fires and mention.role in ("own", "held")
        ]
        shown |= {finding.run.key for finding in firings if finding.run is not None}
        chapters.append(
            Chapter(
                place=place,
                firings=tuple(firings),
                misses=tuple(answer for answer in answers if _missed(answer)),
                runs=tuple(
                    run for run in runs if run.event_id == place.event.id and run.key not in shown
                ),
                triggered=tuple(triggered.get(place.event.id, ())),
            )
        )
    return correlation, chapters


def _triggered(runs: Sequence[Run], correlation: str, stored: Set[str]) -> dict[str, list[Run]]:
    """Runs of events that only they have, by the stored event that led to each."""
    causes: dict[str, str] = {}
    found = []
    for run in runs:
        if run.correlation_id != correlation or run.event_id in stored or run.data is None:
            continue
        with contextlib.suppress(SchemaError):
            causes[run.event_id] = decode(run.data.encode()).causation_id or ""
            found.append(run)
    by_event: dict[str, list[Run]] = {}
    for run in found:
        cause = causes[run.event_id]
        for _ in range(len(causes)):  # a trigger of a trigger
            cause = causes.get(cause, cause)
        by_event.setdefault(cause, []).append(run)
    return by_event


async def _correlation(explainer: Explainer, runs: Sequence[Run], text: str) -> str:
    found = await explainer.lookup.find(text)
    if len(found) > 1:
        raise Ambiguous(text, len(found))
    if found:
        return found[0].event.correlation_id
    stories = {run.run_id: run.correlation_id for run in runs if run.run_id.startswith(text)}
    if len(set(stories.values())) > 1:
        raise Ambiguous(text, len(stories))
    return next(iter(stories.values()), text)


def _missed(answer: Answer) -> bool:
    if answer.status == "unheard":
        return False
    return not any(f.decision.fires and f.role in ("own", "held") for f in answer.findings)
