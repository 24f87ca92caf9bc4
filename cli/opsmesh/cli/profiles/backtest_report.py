"""How `opsmesh profile backtest` shows what it found: tables and a diff, or JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.markup import escape

from opsmesh.cli import output
from opsmesh.handlers.backtest.diff import Change, Difference
from opsmesh.handlers.backtest.result import UNDECODABLE, ProfileResult, Result
from opsmesh.schemas import times

Wants = Callable[[str], bool]

#: Outcomes in the order of an event's way; people see those that there are.
OUTCOMES: Final = (
    *("filtered", "waiting", "debounced", "collecting", "throttled", "suppressed", "duplicate"),
    UNDECODABLE,
)
#: How a firing that only one version has is marked.
MARKS: Final = {"gained": ("+", "green"), "lost": ("-", "red")}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was asked, and what was found. `against` is None when nothing was compared."""

    source: str
    since_us: int
    until_us: int
    host: str | None
    against: str | None
    result: Result
    changes: list[Change]
    differences: Mapping[str, list[Difference]]


def as_dict(report: Report) -> dict[str, Any]:
    """Everything as JSON values; times are UTC."""
    return {
        "from": report.source,
        "since": times.format_us(report.since_us),
        "until": times.format_us(report.until_us),
        "host": report.host,
        "messages": report.result.messages,
        "undecodable": report.result.undecodable,
        "profiles": [_tested(tested) for tested in report.result.profiles],
        "against": report.against,
        "diff": [
            _change(change, report.differences.get(change.profile, [])) for change in report.changes
        ],
    }


def show(report: Report) -> None:
    """For people: every profile, every day when there are several, and the diff."""
    tested = report.result.profiles
    rows = [
        _row({"profile": one.profile}, one.events, one.outcomes) | {"open": one.open}
        for one in tested
    ]
    _table(rows, ["profile"])
    days = sorted({day for one in tested for day in one.days})
    if len(days) > 1:
        output.console().print()
        _table(
            [
                _row({"day": day, "profile": one.profile}, found.events, found.outcomes)
                for day in days
                for one in tested
                if (found := one.days.get(day))
            ],
            ["day", "profile"],
        )
    for change in report.changes:
        if change.differs:
            _show_change(change, report)
    if alike := [change.profile for change in report.changes if not change.differs]:
        output.console().print(f"\nthe same firings as {escape(str(report.against))}:", *alike)
    if elsewhere := sum(one.elsewhere for one in tested):
        output.note(
            f"{elsewhere:,} events of other hosts than {report.host} are not in it: --all-hosts"
        )
    if report.result.undecodable:
        output.note(f"{report.result.undecodable:,} messages have no topic, and are no events")


def _row(names: dict[str, Any], events: int, outcomes: Mapping[str, int]) -> dict[str, Any]:
    return {**names, "events": events, **outcomes, "firings": outcomes.get("fire", 0)}


def _table(rows: list[dict[str, Any]], names: list[str]) -> None:
    found = [name for name in (*OUTCOMES, "open") if any(row.get(name) for row in rows)]
    columns = [*names, "events", "firings", *found]
    numbers = columns[len(names) :]
    output.table(
        [row | {name: f"{row.get(name) or 0:,}" for name in numbers} for row in rows],
        columns,
        empty="no profiles",
    )


def _show_change(change: Change, report: Report) -> None:
    console = output.console()
    console.print()
    name, against = escape(change.profile), escape(str(report.against))
    if change.before is None:
        console.print(f"[bold]{name}[/] [dim]{change.after.hash}[/] is not in {against}")
    else:
        console.print(
            f"[bold]{name}[/] [dim]{change.before.hash} → {change.after.hash}[/] against {against}"
        )
    differences = report.differences.get(change.profile, [])
    console.print(
        f"  {len(change.before.firings) if change.before else 0:,} firings before, "
        f"{len(change.after.firings):,} now: "
        f"[green]{len(change.gained):,} gained[/], [red]{len(change.lost):,} lost[/]"
    )
    for one in differences:
        _show_difference(one)
    rest = len(change.gained) + len(change.lost) - len(differences)
    if rest:
        console.print(f"  [dim]and {rest:,} more: --all[/]")


def _show_difference(one: Difference) -> None:
    mark, colour = MARKS[one.kind]
    firing = one.firing
    place = f" {one.workspace}" if one.workspace else ""
    count = f" with {firing.count - 1} others" if firing.count > 1 else ""
    console = output.console()
    console.print(
        f"  [{colour}]{mark}[/] {output.local(times.format_us(one.time_us))} "
        f"[bold]{escape(firing.topic)}[/]{escape(place)} [dim]{escape(firing.event_id)}[/]{count}"
    )
    fires, other = ("now", "before") if one.kind == "gained" else ("before", "now")
    console.print(f"      {fires} fires: {escape(f'{one.fired.clause}: {one.fired.reason}')}")
    said = one.clause if one.outcome == "none" else f"{one.outcome} by {one.clause}"
    console.print(f"      {other} not: {escape(f'{said}: {one.reason}')}")


def _tested(tested: ProfileResult) -> dict[str, Any]:
    return {
        "profile": tested.profile,
        "hash": tested.hash,
        "events": tested.events,
        "firings": len(tested.firings),
        "outcomes": tested.outcomes,
        "open": tested.open,
        "elsewhere": tested.elsewhere,
        "days": {
            day: {"events": found.events, "outcomes": found.outcomes}
            for day, found in tested.days.items()
        },
    }


def _change(change: Change, differences: list[Difference]) -> dict[str, Any]:
    return {
        "profile": change.profile,
        "before": None if change.before is None else change.before.hash,
        "after": change.after.hash,
        "firings_before": 0 if change.before is None else len(change.before.firings),
        "firings_after": len(change.after.firings),
        "gained": len(change.gained),
        "lost": len(change.lost),
        "differences": [_difference(one) for one in differences],
    }


def _difference(one: Difference) -> dict[str, Any]:
    fired = one.fired
    return {
        "kind": one.kind,
        "event_id": one.firing.event_id,
        "event_seq": one.firing.event_seq,
        "time": times.format_us(one.time_us),
        "topic": one.firing.topic,
        "workspace": one.workspace,
        "host": one.firing.host,
        "fired": {
            "at": times.format_us(fired.at_us),
            "clause": fired.clause,
            "reason": fired.reason,
            "events": [ref.id for ref in fired.events] or [fired.event_id],
        },
        "other": {"outcome": one.outcome, "clause": one.clause, "reason": one.reason},
    }
