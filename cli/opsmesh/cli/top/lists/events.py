"""Events as they are stored, the newest last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape

from opsmesh.cli.events import COLOURS, fields, gist, line
from opsmesh.cli.top.listing import DIM, PLAIN, Cell, Column
from opsmesh.cli.view.model import SeenEvent, View
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import times
from opsmesh.schemas.envelope import Event

#: Severities in five characters.
LEVELS: Final = {"info": "info", "warn": "warn", "error": "error", "critical": "crit"}


class Events:
    """What has been heard."""

    name = "events"
    columns = (
        Column(name="time", width=8),
        Column(name="level", width=5),
        Column(name="topic", width=26, grow=1),
        Column(name="from", width=13, grow=1),
        Column(name="what", width=11, grow=8),
    )
    empty = "no events yet"
    follows = True
    keys = (("space", "pause"),)

    def items(self, view: View) -> Sequence[SeenEvent]:
        return view.events

    def key(self, item: SeenEvent) -> str:
        return f"{item.seq} {item.stored_us}"

    def title(self, item: SeenEvent) -> str:
        return item.event.topic if item.event is not None else item.subject

    def topic(self, item: SeenEvent) -> str:
        return item.event.topic if item.event is not None else item.subject

    def text(self, item: SeenEvent) -> str:
        if (event := item.event) is None:
            return f"{item.subject} {item.error}"
        return " ".join(
            (
                *(event.topic, event.severity, event.host, event.source, event.workspace),
                *(event.id, event.correlation_id, str(event.payload)),
            )
        )

    def cells(self, item: SeenEvent, now_us: int) -> Sequence[Cell]:
        when = (times.clock(item.stored_us, millis=False)[-8:], DIM)
        if (event := item.event) is None:
            return (when, ("?", "red"), (item.subject, "red"), ("", PLAIN), (item.error, "red"))
        return (
            when,
            (LEVELS[event.severity], COLOURS[event.severity]),
            (event.topic, "bold"),
            (f"{event.host}/{event.source}", DIM),
            (gist(event.payload), PLAIN),
        )

    def leads(self, item: SeenEvent) -> tuple[str, str]:
        return "events", item.event.correlation_id if item.event is not None else ""

    def tell(self, console: Console, item: SeenEvent, view: View) -> None:
        if (event := item.event) is None:
            console.print(f"[red]undecodable[/] {escape(item.subject)}: {escape(item.error)}")
            return
        console.print(line(event, item.stored_us, with_id=False))
        console.print(f"[dim]stored as {EVENTS} sequence {item.seq}, {escape(item.subject)}[/]")
        console.print_json(json.dumps(fields(event), default=str))
        for seen, caused in _around(event, view):
            console.print(f"[dim]{seen}[/] ", line(*caused, with_id=False))
        for run in view.runs.values():
            if run.event_id == event.id:
                console.print(
                    f"[dim]run[/]  {escape(run.profile)} {run.state} [dim]{run.run_id}[/]"
                )
        console.print(f"[dim]next: opsmesh why {event.id} · opsmesh trace {event.id}[/]")


def _around(event: Event, view: View) -> Sequence[tuple[str, tuple[Event, int]]]:
    """What caused it and what it caused, as far as that was heard."""
    found = []
    for one in view.events:
        if one.event is None:
            continue
        if event.causation_id and one.event.id == event.causation_id:
            found.append(("cause", (one.event, one.stored_us)))
        elif one.event.causation_id == event.id:
            found.append(("caused", (one.event, one.stored_us)))
    return found
