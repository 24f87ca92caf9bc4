"""An event's story as a graph: what led to what, as `opsmesh trace` tells it.

Nodes are events and runs; each but the first has the one that led to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from nats.aio.client import Client

from opsmesh.cli.events import fields
from opsmesh.cli.run import commands as runs
from opsmesh.cli.trace import Order
from opsmesh.cli.web import records
from opsmesh.cli.why import text as why_text
from opsmesh.cli.why.why import open_explainer
from opsmesh.handlers.explain.answers import Finding
from opsmesh.handlers.explain.story import Chapter, tell
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router.settings import Settings

#: Nodes of a picture; what comes after is counted.
MOST: Final = 400


async def story(client: Client, settings: Settings, text: str) -> dict[str, Any] | None:
    """The story that an event, a run or a correlation belongs to; None when there is none.
    Ambiguous for the start of several ids."""
    explainer = await open_explainer(client, settings)
    correlation, chapters = await tell(client, explainer, text)
    if not chapters:
        return None
    nodes = list(_Graph(chapters).nodes())
    return {"correlation": correlation, "nodes": nodes[:MOST], "more": max(len(nodes) - MOST, 0)}


class _Graph:
    def __init__(self, chapters: Sequence[Chapter]) -> None:
        self._order = Order(chapters)
        self._seen: set[str] = set()

    def nodes(self) -> Iterator[dict[str, Any]]:
        """Each after the one that led to it."""
        for chapter in self._order.first:
            yield from self._event(chapter, above=None)

    def _event(self, chapter: Chapter, *, above: str | None) -> Iterator[dict[str, Any]]:
        event, place = chapter.place.event, chapter.place
        if event.id in self._seen:
            return
        self._seen.add(event.id)
        yield {
            "kind": "event",
            "id": event.id,
            "above": above,
            "seq": place.seq,
            "at": place.stored_us / 1e3,
            "archived": place.archived,
            "event": fields(event),
        }
        for finding in chapter.firings:
            if finding.run is not None and finding.role == "own":
                yield from self._run(finding.run, above=event.id, finding=finding)
        for one in (*chapter.runs, *chapter.triggered):
            yield from self._run(one, above=event.id)
        for below in self._order.below.get(event.id, ()):
            yield from self._event(below, above=event.id)

    def _run(
        self, one: Run, *, above: str, finding: Finding | None = None
    ) -> Iterator[dict[str, Any]]:
        if one.run_id in self._seen:
            return
        self._seen.add(one.run_id)
        why = why_text.reason(finding) if finding is not None else one.trigger
        yield {"kind": "run", "above": above, "why": why, **records.run(one)}
        for below in self._order.below.get(one.run_id, ()):
            yield from self._event(below, above=one.run_id)


def run_record(one: Run) -> dict[str, Any]:
    """A run whole, as `opsmesh run show --json` has it."""
    return runs.record(one)
