"""Dead letters: events that no attempt could handle, the newest last."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from opsmesh.cli.dlq import text as letter_text
from opsmesh.cli.top.listing import DIM, PLAIN, Cell, Column, ago
from opsmesh.cli.view.model import View
from opsmesh.router.deadletter import Letter


class Letters:
    """What waits for somebody to mend its cause."""

    name = "dlq"
    columns = (
        Column(name="seq", width=5, right=True),
        Column(name="ago", width=4, right=True),
        Column(name="profile", width=16, grow=1),
        Column(name="topic", width=22, grow=1),
        Column(name="tries", width=5, right=True),
        Column(name="reason", width=20, grow=4),
    )
    empty = "no dead letters"
    follows = True
    keys = (("r", "retry"), ("d", "drop"), ("R D", "all shown"))

    def items(self, view: View) -> Sequence[Letter]:
        return view.letters

    def key(self, item: Letter) -> str:
        return str(item.seq)

    def title(self, item: Letter) -> str:
        return f"{item.seq} of {item.profile}"

    def topic(self, item: Letter) -> str:
        return item.topic

    def text(self, item: Letter) -> str:
        return f"{item.profile} {item.topic} {item.host} {item.reason} {item.event_id} {item.seq}"

    def cells(self, item: Letter, now_us: int) -> Sequence[Cell]:
        return (
            (str(item.seq), DIM),
            (ago(item.stored_us, now_us), DIM),
            (item.profile, "bold"),
            (item.topic, PLAIN),
            (str(len(item.errors)), DIM),
            (item.reason, "red"),
        )

    def leads(self, item: Letter) -> tuple[str, str]:
        return "runs", item.run_id

    def tell(self, console: Console, item: Letter, view: View) -> None:
        letter_text.describe(console, item)
