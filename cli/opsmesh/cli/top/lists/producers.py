"""Producers and other sources: their processes here, and the last word of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from opsmesh.cli.events import line
from opsmesh.cli.top.listing import DIM, PLAIN, Cell, Column, ago
from opsmesh.cli.view.model import Heard, View
from opsmesh.schemas import times

#: What a producer's process is called among the components.
PREFIX: Final = "producer:"
STATES: Final = {"running": "green", "waiting": "yellow"}
#: The newest events that are told of.
EVENTS: Final = 12


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of events; `component` is its process on this host, where it has one of its own."""

    name: str
    heard: Heard | None
    component: Mapping[str, Any] | None


class Producers:
    """Who says what."""

    name = "producers"
    columns = (
        Column(name="source", width=16, grow=1),
        Column(name="process", width=9),
        Column(name="events", width=7, right=True),
        Column(name="last", width=4, right=True),
        Column(name="last event", width=28, grow=3),
    )
    empty = "no producer runs here: opsmesh producer ls says why"
    follows = False
    keys = ()

    def items(self, view: View) -> Sequence[Source]:
        processes = {
            one["name"].removeprefix(PREFIX): one
            for one in view.components
            if one["name"].startswith(PREFIX)
        }
        return [
            Source(name=name, heard=view.producers.get(name), component=processes.get(name))
            for name in sorted({*processes, *view.producers})
        ]

    def key(self, item: Source) -> str:
        return item.name

    def title(self, item: Source) -> str:
        return item.name

    def topic(self, item: Source) -> str:
        return item.heard.topic if item.heard is not None else ""

    def text(self, item: Source) -> str:
        return f"{item.name} {_state(item)} {self.topic(item)}"

    def cells(self, item: Source, now_us: int) -> Sequence[Cell]:
        state, heard = _state(item), item.heard
        return (
            (item.name, "bold"),
            (state, STATES.get(state, "red" if item.component else DIM)),
            (f"{heard.count:,}" if heard else "-", PLAIN if heard else DIM),
            (ago(heard.last_us, now_us) if heard else "-", DIM),
            (heard.topic, PLAIN) if heard else (_silent(item), DIM),
        )

    def leads(self, item: Source) -> tuple[str, str]:
        return "events", item.name

    def tell(self, console: Console, item: Source, view: View) -> None:
        console.print(f"[bold]{escape(item.name)}[/]")
        if item.component is not None:
            for name in ("state", "pid", "restarts", "since", "last_exit", "unit", "log"):
                if value := item.component.get(name):
                    console.print(f"  [dim]{name.replace('_', ' '):<12}[/]{escape(str(value))}")
        if item.heard is not None:
            when = times.clock(item.heard.last_us)
            console.print(f"  [dim]{'events':<12}[/]{item.heard.count:,}, the last at {when}")
        console.print()
        own = [one for one in view.events if one.event and one.event.source == item.name]
        for one in own[-EVENTS:]:
            assert one.event is not None  # noqa: S101 (filtered above)
            console.print(line(one.event, one.stored_us, with_id=False))
        console.print("[dim]next: opsmesh producer ls says what each watches, and why not[/]")


def _state(item: Source) -> str:
    return str(item.component["state"]) if item.component is not None else "-"


def _silent(item: Source) -> str:
    """Why there is no last event."""
    if _state(item) != "waiting":
        return "nothing yet"
    return (item.component or {}).get("last_exit") or "its tool is not here: opsmesh producer ls"
