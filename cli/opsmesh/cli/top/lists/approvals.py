"""Questions that wait for a person, the oldest first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from opsmesh.cli.approvals import describe
from opsmesh.cli.top.listing import DIM, PLAIN, Cell, Column, ago
from opsmesh.cli.view.model import View
from opsmesh.handlers.runs.approvals import Open


class Approvals:
    """What is asked."""

    name = "approvals"
    columns = (
        Column(name="ago", width=4, right=True),
        Column(name="left", width=5, right=True),
        Column(name="profile", width=16, grow=1),
        Column(name="question", width=50, grow=5),
    )
    empty = "nothing waits for an approval"
    follows = False
    keys = (("y", "yes"), ("n", "no"))

    def items(self, view: View) -> Sequence[Open]:
        return view.approvals

    def key(self, item: Open) -> str:
        return item.asked.id

    def title(self, item: Open) -> str:
        return item.run.profile

    def topic(self, item: Open) -> str:
        return item.run.topic

    def text(self, item: Open) -> str:
        return f"{item.run.profile} {item.asked.prompt} {item.run.topic} {item.asked.id}"

    def cells(self, item: Open, now_us: int) -> Sequence[Cell]:
        until = item.asked.expires_us
        return (
            (ago(item.asked.asked_us, now_us), DIM),
            (ago(2 * now_us - until, now_us) if until else "-", "yellow" if until else DIM),
            (item.run.profile, "bold"),
            (item.asked.prompt, PLAIN),
        )

    def leads(self, item: Open) -> tuple[str, str]:
        return "events", item.run.correlation_id

    def tell(self, console: Console, item: Open, view: View) -> None:
        describe(console, item)
