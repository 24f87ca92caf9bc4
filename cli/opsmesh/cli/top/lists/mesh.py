"""The mesh itself: what is wrong or was lost, with what mends it; its processes; its hosts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from opsmesh.cli.top.listing import DIM, PLAIN, Cell, Column, ago
from opsmesh.cli.top.lists.producers import STATES
from opsmesh.cli.view.model import View


@dataclass(frozen=True, kw_only=True)
class Part:
    """One line of how the mesh is; `more` are the facts behind it."""

    kind: str
    name: str
    state: str
    style: str
    said: str
    more: dict[str, str] = field(default_factory=dict)
    last_us: int = 0


class Mesh:
    """How all of it is."""

    name = "mesh"
    columns = (
        Column(name="part", width=9),
        Column(name="name", width=22, grow=2),
        Column(name="state", width=8),
        Column(name="", width=30, grow=3),
    )
    empty = "looking …"
    follows = False
    keys = ()

    def items(self, view: View) -> Sequence[Part]:
        parts = [
            Part(
                kind="problem",
                name=one["what"],
                state="✗",
                style="red",
                said=one["fix"],
                more=dict(one),
            )
            for one in view.problems
        ]
        parts += [
            Part(kind="loss", name=one["what"], state="!", style="yellow", said=one["fix"])
            for one in view.notes
        ]
        processes = [
            Part(
                kind="process",
                name=one["name"],
                state=str(one["state"]),
                style=STATES.get(one["state"], "red"),
                said=_process(one),
                more={name: str(value) for name, value in one.items() if value},
            )
            for one in view.components
        ]
        parts += [one for one in processes if one.state != "waiting"]
        parts += [
            Part(kind=name, name="", state="", style=PLAIN, said=said) for name, said in view.facts
        ]
        parts += [
            Part(
                kind="host",
                name=name,
                state=f"{heard.count:,}",
                style=PLAIN,
                said=heard.topic,
                last_us=heard.last_us,
            )
            for name, heard in sorted(view.hosts.items())
        ]
        return parts + [one for one in processes if one.state == "waiting"]

    def key(self, item: Part) -> str:
        return f"{item.kind} {item.name}"

    def title(self, item: Part) -> str:
        return item.kind

    def topic(self, item: Part) -> str:
        return item.said

    def text(self, item: Part) -> str:
        return f"{item.kind} {item.name} {item.state} {item.said}"

    def cells(self, item: Part, now_us: int) -> Sequence[Cell]:
        last = f"{ago(item.last_us, now_us):>4}  " if item.last_us else ""
        return (
            (item.kind, DIM),
            (item.name, {"problem": "red", "loss": "yellow"}.get(item.kind, "bold")),
            (item.state, item.style),
            (f"{last}{item.said}", PLAIN),
        )

    def leads(self, item: Part) -> tuple[str, str]:
        return "events", item.name if item.kind == "host" else ""

    def tell(self, console: Console, item: Part, view: View) -> None:
        console.print(f"[bold]{escape(item.name)}[/]")
        if item.kind in ("problem", "loss"):
            console.print(f"  [dim]{'mend it':<12}[/]{escape(item.said)}")
            return
        if not item.name:
            console.print(f"  [dim]{item.kind:<12}[/]{escape(item.said)}")
        for name, value in item.more.items():
            console.print(f"  [dim]{name.replace('_', ' '):<12}[/]{escape(value)}")
        if item.kind == "host":
            console.print(f"  {item.state} events since this view began; the last: {item.said}")


def _process(component: Mapping[str, Any]) -> str:
    if component["state"] == "waiting":
        return component["last_exit"] or "for its tool"
    parts = [f"pid {component['pid']}" if component["pid"] else ""]
    parts.append(f"begun again {n} times" if (n := component["restarts"]) else "")
    parts.append(f"last: {last}" if (last := component["last_exit"]) else "")
    return ", ".join(part for part in parts if part)
