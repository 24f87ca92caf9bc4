"""Profiles: whether each is decided, what waits for it, and how its runs of the last week went."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from opsmesh.cli.profiles.health import WRONG
from opsmesh.cli.run.commands import COLOURS as RUN_COLOURS
from opsmesh.cli.top.listing import DIM, PLAIN, Cell, Column, ago
from opsmesh.cli.view.model import ProfileView, View
from opsmesh.handlers.slo.objectives import Standing
from opsmesh.schemas import times

_STATES = {"enabled": "green", "shadow": "cyan", "disabled": DIM}
#: The newest runs that are told of.
RUNS = 10


class Profiles:
    """What is in force, and candidates beside it."""

    name = "profiles"
    columns = (
        Column(name="profile", width=18, grow=1),
        Column(name="state", width=8),
        Column(name="lag", width=5, right=True),
        Column(name="runs", width=5, right=True),
        Column(name="ok", width=5, right=True),
        Column(name="false", width=5, right=True),
        Column(name="last", width=4, right=True),
        Column(name="verdict", width=15, grow=1),
        Column(name="detail", width=24, grow=3, since=110),
    )
    empty = "no profiles: opsmesh profile ls --shipped has some to begin with"
    follows = False
    keys = ()

    def items(self, view: View) -> Sequence[ProfileView]:
        return sorted(view.profiles.values(), key=lambda one: (one.name, one.kind != "profile"))

    def key(self, item: ProfileView) -> str:
        return f"{item.name} {item.kind}"

    def title(self, item: ProfileView) -> str:
        return item.name

    def topic(self, item: ProfileView) -> str:
        return item.name

    def text(self, item: ProfileView) -> str:
        return f"{item.name} {item.kind} {item.state} {item.verdict} {item.detail}"

    def cells(self, item: ProfileView, now_us: int) -> Sequence[Cell]:
        mark = "" if item.kind == "profile" else " · candidate"
        verdict, style = _verdict(item)
        judged = item.succeeded + item.failed
        return (
            (f"{item.name}{mark}", "bold"),
            (item.state, _STATES.get(item.state, PLAIN)),
            (f"{item.waiting}", "yellow" if item.waiting else DIM),
            (f"{item.runs}", PLAIN if item.runs else DIM),
            (_share(item.succeeded, judged), "red" if item.failed else PLAIN),
            (f"{item.false_positives}", "yellow" if item.false_positives else DIM),
            (ago(item.last_us, now_us), DIM),
            (verdict, style),
            (item.detail, DIM),
        )

    def leads(self, item: ProfileView) -> tuple[str, str]:
        return "runs", item.name

    def tell(self, console: Console, item: ProfileView, view: View) -> None:
        verdict, style = _verdict(item)
        console.print(f"[bold]{escape(item.name)}[/] {escape(item.state)} ({escape(item.kind)})")
        console.print(f"  [dim]verdict      [/][{style or 'green'}]{escape(verdict)}[/]")
        judged = item.succeeded + item.failed
        for name, value in (
            ("", item.detail),
            ("mend it", item.fix),
            ("waiting", f"{item.waiting} events"),
            ("asks", f"{item.asking} runs wait for an answer" if item.asking else ""),
            ("7 days", f"{item.runs} runs"),
            ("succeeded", f"{item.succeeded} of {judged} ({_share(item.succeeded, judged)})"),
            ("false alarms", f"{item.false_positives}"),
            ("last run", times.clock(item.last_us) if item.last_us else "none"),
        ):
            if value:
                console.print(f"  [dim]{name:<13}[/]{escape(value)}")
        for one in item.objectives:
            console.print(f"  [dim]{'objective':<13}[/]{escape(_objective(one))}")
        newest = [run for run in view.runs.values() if run.profile == item.name][-RUNS:]
        for run in reversed(newest):
            colour = RUN_COLOURS.get(run.state, "dim")
            console.print(
                f"  [dim]{times.clock(run.created_us, millis=False)}[/] "
                f"[{colour}]{run.state:<12}[/] {escape(run.topic)} [dim]{run.run_id}[/]"
            )
        console.print(
            f"[dim]next: opsmesh profile show {escape(item.name)} · "
            f"opsmesh why-not {escape(item.name)}[/]"
        )


def _verdict(item: ProfileView) -> tuple[str, str]:
    """The worst that can be said of it: that nobody decides, or that it misses what is wanted."""
    if item.verdict in WRONG:
        return item.verdict, "bold red"
    missed = [one for one in item.objectives if one.verdict in ("breached", "burning")]
    if missed:
        return f"{missed[0].verdict} {missed[0].objective.name}", "red"
    if item.verdict == "ok" and item.asking:
        return f"asks: {item.asking}", "magenta"
    return item.verdict, {"ok": "green", "behind": "yellow"}.get(item.verdict, DIM)


def _share(part: int, whole: int) -> str:
    return f"{100 * part // whole}%" if whole else "-"


def _objective(one: Standing) -> str:
    good = "" if one.good is None else f", {one.good:.1%} good"
    left = "" if one.left is None else f", {one.left:.0%} of the budget left"
    return f"{one.objective.name}: {one.verdict} of {one.runs} runs{good}{left}"
