"""Runs of the last day, the newest last, with their steps."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from opsmesh.cli.run.commands import COLOURS, describe
from opsmesh.cli.top.listing import DIM, PLAIN, Cell, Column
from opsmesh.cli.view.model import View
from opsmesh.handlers.runs.ledger import Run
from opsmesh.schemas import times

#: A step's state as one character.
MARKS = {
    "started": "▸",
    "done": "✓",
    "failed": "✗",
    "unknown": "?",
    "skipped": "-",
    "asked": "…",
}

#: Steps whose name is of interest beside their mark.
NAMED = ("started", "failed", "unknown", "asked")


class Runs:
    """What profiles have done."""

    name = "runs"
    columns = (
        Column(name="time", width=8),
        Column(name="state", width=12),
        Column(name="profile", width=16, grow=2),
        Column(name="topic", width=20, grow=2),
        Column(name="took", width=7, right=True),
        Column(name="steps", width=12, grow=1),
        Column(name="error", width=24, grow=4, since=110),
    )
    empty = "no runs in the last day"
    follows = True
    keys = ()

    def items(self, view: View) -> Sequence[Run]:
        return sorted(view.runs.values(), key=lambda run: (run.created_us, run.run_id))

    def key(self, item: Run) -> str:
        return item.run_id

    def title(self, item: Run) -> str:
        return f"{item.profile} {item.run_id[:13]}"

    def topic(self, item: Run) -> str:
        return item.topic

    def text(self, item: Run) -> str:
        steps = " ".join(f"{step.id} {step.error or ''}" for step in item.steps)
        return f"{item.profile} {item.state} {item.topic} {item.host} {item.run_id} {steps}"

    def cells(self, item: Run, now_us: int) -> Sequence[Cell]:
        tries = f" ×{item.attempt}" if item.attempt > 1 else ""
        return (
            (times.clock(item.created_us, millis=False)[-8:], DIM),
            (item.state, COLOURS.get(item.state, DIM)),
            (f"{item.profile}{tries}", "bold"),
            (item.topic, PLAIN),
            (took(item.duration_ms), DIM),
            (_steps(item), PLAIN),
            (item.errors[-1].error if item.errors else "", "red"),
        )

    def leads(self, item: Run) -> tuple[str, str]:
        return "events", item.correlation_id

    def tell(self, console: Console, item: Run, view: View) -> None:
        describe(console, item)


def took(ms: float | None) -> str:
    """A duration in seven characters."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.1f} s" if ms < 600_000 else f"{ms / 60_000:.0f} min"


def _steps(run: Run) -> str:
    """The marks of all steps, and the name of the one that is on, or that failed."""
    marks = "".join(MARKS[step.state] for step in run.steps)
    told = [step.id for step in run.steps if step.state in NAMED]
    return f"{marks} {told[-1]}" if told else marks
