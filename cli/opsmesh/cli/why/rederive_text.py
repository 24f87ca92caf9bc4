"""How `why --rederive` reads: a line for each decision, and each field that differs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from rich.markup import escape

from opsmesh.cli.why import text as why_text
from opsmesh.handlers.explain.rederive import Check
from opsmesh.handlers.explain.wording import count
from opsmesh.schemas import times
from opsmesh.schemas.times import clock


class Counted(msgspec.Struct, frozen=True):
    """A decision that came out as it was, when there are too many to keep."""

    result: Literal["same"] = "same"


SAME: Final = Counted()


def lines(checks: Sequence[Check | Counted]) -> Iterator[str]:
    """For people, as markup."""
    for check in checks:
        if isinstance(check, Counted):
            continue
        decision = check.decision
        what = (
            f"[bold]{escape(decision.profile)}[/] {escape(why_text.brief(decision))} "
            f"[dim]{clock(decision.at_us)} {escape(decision.event_id)}[/]"
        )
        if check.result == "same":
            yield f"[green]✓[/] {what}: same {check.bytes} bytes"
        elif check.result == "unchecked":
            yield f"[yellow]?[/] {what}: not checked: {escape(check.reason)}"
        else:
            how = f": {check.reason}" if check.reason else ""
            yield f"[red]✗[/] {what}: different{escape(how)}"
            for one in check.differences:
                yield f"    [bold]{one.field}[/]"
                yield f"      recorded   {escape(_shown(one.recorded))}"
                yield f"      re-derived {escape(_shown(one.derived))}"
    counts = _counts(checks)
    yield (
        f"{count(sum(counts.values()), 'decision')} made again: {counts['same']} the same, "
        f"{counts['different']} different, {counts['unchecked']} not checked"
    )


def record(checks: Sequence[Check | Counted]) -> dict[str, Any]:
    """As JSON: counts, and everything that is not the same, or that was asked for by its event."""
    return {
        "counts": _counts(checks),
        "checks": [_record(check) for check in checks if isinstance(check, Check)],
    }


def _record(check: Check) -> dict[str, Any]:
    decision = check.decision
    return {
        "result": check.result,
        "profile": decision.profile,
        "profile_hash": decision.profile_hash,
        "host": decision.host,
        "event_id": decision.event_id,
        "event_seq": decision.event_seq,
        "at": times.format_us(decision.at_us),
        "outcome": decision.outcome,
        "clause": decision.clause,
        "timer": decision.timer,
        "bytes": check.bytes,
        "reason": check.reason,
        "differences": msgspec.to_builtins(check.differences, enc_hook=str),
    }


def _counts(checks: Sequence[Check | Counted]) -> dict[str, int]:
    found = Counter(check.result for check in checks)
    return {name: found[name] for name in ("same", "different", "unchecked")}


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False, default=str)
