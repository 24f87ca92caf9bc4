"""How an explanation reads: one block a profile, one line a clause, at most 100 columns.

Markup for people; programs have `--json`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
from rich.markup import escape

from opsmesh.cli.run.commands import COLOURS as RUN_COLOURS
from opsmesh.handlers.explain.answers import Answer, Finding
from opsmesh.handlers.explain.elsewhere import RunTold
from opsmesh.handlers.explain.verdicts import Part, Verdict
from opsmesh.handlers.explain.wording import count, value
from opsmesh.handlers.runs.ledger import Run
from opsmesh.router.decide import Decision
from opsmesh.schemas import times
from opsmesh.schemas.times import clock

WIDTH: Final = 100
#: What the engine says of a profile in shadow: the clause that would have fired, and why.
_SHADOW: Final = re.compile(r"would have fired \((\w+): (.*)\); the profile is in shadow")
_ANSWERED: Final = {True: "is true", False: "is false", None: "cannot be answered"}
#: Values of a condition that is one whole are shown up to this many.
VALUES: Final = 8

_MARKS: Final = {
    "passed": ("✓", "green"),
    "stopped": ("✗", "red"),
    "waits": ("…", "cyan"),
    "not_asked": ("·", "dim"),
}
_COLOURS: Final = {
    "fire": "bold green",
    "would have fired": "bold yellow",
    "collecting": "cyan",
    "waiting": "cyan",
}


def answer(found: Answer) -> Iterator[str]:
    """Everything about one profile, as lines of markup."""
    if not found.findings:
        yield f"[bold]{escape(found.profile)}[/]  [yellow]{WITHOUT[found.status]}[/]"
        yield from wrapped(found.text, indent=2)
        if found.hint:
            yield f"  [dim]→ {escape(found.hint)}[/]"
        if found.consumer:
            yield f"  [dim]{escape(_text(found))}[/]"
        return
    for number, finding in enumerate(found.findings):
        if number == 0:
            yield from _head(found, finding)
        else:
            yield from _later(finding)
        if finding.role in ("own", "held", "window"):
            yield from _verdicts(finding.verdicts, later=number > 0)
        if finding.run is not None:
            yield f"  {run(finding.run)}"
            if finding.run.evidence_path:
                told = f"opsmesh evidence bundle show {finding.run.run_id}"
                yield f"  [bold]evidence[/]   [dim]{told}[/]"
        elif finding.told is not None:
            yield f"  {run_told(finding.told)}"
        elif finding.decision.outcome == "fire" and found.leaf:
            yield f"  [dim]nothing is told of its run yet; its ledger is on {escape(found.host)}[/]"
        elif finding.decision.outcome == "fire":
            told = "no run: a candidate acts on nothing" if found.candidate else _NO_RUN
            yield f"  [dim]{told}[/]"
    if found.text:
        yield from wrapped(found.text, indent=2)


def brief(decision: Decision) -> str:
    """A decision in a few words, without markup: `fired (where)`."""
    if decision.clause == "shadow":
        return "would have fired"
    return f"{_outcome(decision)} ({'handled' if decision.clause == 'event' else decision.clause})"


def styled(decision: Decision) -> str:
    """The same with its colour."""
    colour = _COLOURS.get(_kind(decision), "")
    return f"[{colour}]{brief(decision)}[/]" if colour else brief(decision)


def reason(finding: Finding) -> str:
    """Why, without markup; of a condition of several parts only those that are not true."""
    told = " ".join(finding.decision.reason.split())
    clause = finding.decision.clause
    if shadow := _SHADOW.fullmatch(told):
        clause, told = shadow[1], shadow[2] if shadow[1] == "where" else f"{shadow[1]}: {shadow[2]}"
    parts = next((one.parts for one in finding.verdicts if one.clause == "where"), ())
    if clause != "where" or len(parts) < 2:
        return told
    wrong = [part for part in parts if not part.true]
    if not wrong:
        return f"all of its {len(parts)} conditions are true"
    answers = (f"{part.condition} {_ANSWERED[part.true]}" for part in wrong)
    return "; ".join(" ".join(one.split()) for one in answers)


def run(found: Run) -> str:
    """A run on one line of markup, with the command that shows it whole."""
    colour = RUN_COLOURS.get(found.state, "dim")
    took = f", {found.duration_ms:.0f} ms" if found.duration_ms is not None else ""
    attempt = f", attempt {found.attempt}" if found.attempt else ""
    why = f" ({escape(found.reason)})" if found.reason else ""
    return (
        f"[bold]run[/] [{colour}]{found.state}[/]{why}{attempt}{took}   "
        f"[dim]opsmesh run show {found.run_id}[/]"
    )


def run_told(told: RunTold) -> str:
    """A run of another broker on one line of markup."""
    colour = RUN_COLOURS.get(told.state, "dim")
    attempt = f", attempt {told.attempt}" if told.attempt else ""
    return f"[bold]run[/] [{colour}]{told.state}[/]{attempt}   [dim]{escape(told.hint)}[/]"


def unheard(answers: Sequence[Answer]) -> Iterator[str]:
    """The closing line about the profiles whose subject filter does not match."""
    if answers:
        names = ", ".join(sorted({one.profile for one in answers}))
        number = count(len(answers), "more profile")
        yield from wrapped(
            f"{number}: the event is not on what it listens to ({names}); --all says why"
            if len(answers) == 1
            else f"{number}: the event is not on what they listen to ({names}); --all says why",
            indent=0,
            style="dim",
        )


def record(found: Answer) -> dict[str, Any]:
    """An answer as JSON, its times as UTC text."""
    bare = msgspec.structs.replace(found, findings=())
    made: dict[str, Any] = msgspec.to_builtins(bare)
    made["findings"] = [finding_record(finding) for finding in found.findings]
    return made


def finding_record(found: Finding) -> dict[str, Any]:
    """A decision as JSON, with what a reader needs of its run."""
    made: dict[str, Any] = msgspec.to_builtins(found, enc_hook=str)
    made["decision"]["at"] = times.format_us(found.decision.at_us)
    if found.run is not None:
        kept = ("run_id", "state", "attempt", "duration_ms", "reason")
        made["run"] = {name: getattr(found.run, name) for name in kept}
    return made


def _head(found: Answer, finding: Finding) -> Iterator[str]:
    decision = finding.decision
    title = f"[bold]{escape(found.profile)}[/]"
    if found.candidate:
        title += " [dim](candidate)[/]"
    if finding.role == "own":
        title += f"  {styled(decision)}"
        if not finding.recorded:
            title += "  [magenta]re-derived[/]"
        yield title
        yield from wrapped(reason(finding), indent=2)
        yield f"  [dim]{escape(_text(found))}; {escape(_when(finding))}[/]"
    else:
        yield title
        yield from _later(finding)


def _later(finding: Finding) -> Iterator[str]:
    decision = finding.decision
    others = count(len(decision.events) - 1, "other event")
    told = {
        "own": f"when its time had come{f', with {others}' if decision.events else ''}",
        "held": f"with {others}",
        "ended": "what it waited for came",
        "replaced": "a later event took its place",
        "window": "when the time of its window had come, for another event",
    }[finding.role]
    if finding.role == "own" and (decision.timer or "").startswith("trigger."):
        told = "by hand"
    elif finding.role == "own" and decision.timer is None:
        told = f"for the same event stored again, as sequence {decision.event_seq}"
    yield f"  [bold]{clock(decision.at_us)}[/] {styled(decision)}, {told}"
    if finding.role != "own":
        yield f"    [dim]{escape(decision.topic)} {escape(decision.event_id)}[/]"
    if finding.role != "replaced":
        yield from wrapped(reason(finding), indent=4)


def _verdicts(found: Iterable[Verdict], *, later: bool) -> Iterator[str]:
    aside: dict[str, list[str]] = {"earlier": [], "not_asked": [], "not_set": []}
    for one in found:
        objects = one.answer == "not_asked" and "no as well" in one.text
        if one.answer in aside and not objects:
            aside[one.answer].append(one.clause)
            continue
        yield from _verdict(one)
    for name, told in (
        ("earlier", "asked when the event came"),
        ("not_asked", "not asked any more"),
        ("not_set", "not set"),
    ):
        if aside[name] and not later:
            yield f"    [dim]· {told}: {', '.join(aside[name])}[/]"


def _verdict(one: Verdict) -> Iterator[str]:
    mark, colour = _MARKS[one.answer]
    style = "dim" if one.answer == "not_asked" else ""
    first, *rest = _fold(one.text, WIDTH - 17)
    bold = "bold" if one.decided else style
    yield f"    [{colour}]{mark}[/] {_in(bold, f'{one.clause:<10}')} {_in(style, first)}"
    for line in rest:
        yield " " * 17 + _in(style, line)
    if len(one.parts) > 1:
        for part in one.parts:
            yield from _part(part)
    elif one.clause == "where" and one.parts and one.answer != "not_asked":
        yield from _whole(one.parts[0])


def _whole(part: Part) -> Iterator[str]:
    """The values of a condition that is not joined of others."""
    for name, found in list(part.values.items())[:VALUES]:
        yield f"                 [dim]{escape(name)} = {escape(value(found))}[/]"
    if len(part.values) > VALUES:
        yield f"                 [dim]and {len(part.values) - VALUES} more: --json[/]"


def _part(part: Part) -> Iterator[str]:
    mark, colour = {True: ("✓", "green"), False: ("✗", "red"), None: ("?", "yellow")}[part.true]
    read = ", ".join(f"{name} = {value(found)}" for name, found in part.values.items())
    first, *rest = _fold(part.condition, WIDTH - 19)
    yield f"                 [{colour}]{mark}[/] {escape(first)}"
    for line in rest:
        yield " " * 19 + escape(line)
    told = part.reason or read
    for line in _fold(told, WIDTH - 21) if told else ():
        yield " " * 21 + f"[dim]{escape(line)}[/]"


def _text(found: Answer) -> str:
    then = " then" if found.findings else ""
    state = f", {found.state}{then}" if found.state else ""
    text = f"text {found.hash}{state}" if found.hash else "no text in force then"
    return f"{text}; {found.host}" if found.host else text


def _when(finding: Finding) -> str:
    if not finding.recorded:
        return "made again from the event and this text"
    took = f", took {finding.took_us:.0f} µs" if finding.took_us else ""
    return f"decided as of {clock(finding.decision.at_us)}{took}"


def _kind(decision: Decision) -> str:
    return "would have fired" if decision.clause == "shadow" else decision.outcome


def _outcome(decision: Decision) -> str:
    return {"fire": "fired", "duplicate": "a duplicate"}.get(decision.outcome, _kind(decision))


def _in(style: str, text: str) -> str:
    return f"[{style}]{escape(text)}[/]" if style else escape(text)


def wrapped(text: str, *, indent: int, style: str = "") -> Iterator[str]:
    """A text without markup, as lines of markup that are not too long."""
    for line in _fold(text, WIDTH - indent):
        yield " " * indent + _in(style, line)


def _fold(text: str, width: int) -> list[str]:
    one_line = " ".join(text.split())
    return textwrap.wrap(one_line, width, break_long_words=False, break_on_hyphens=False) or [""]


#: Answers without a decision, by their status.
WITHOUT: Final = {
    "undecided": "not decided",
    "unheard": "not listened to",
    "lost": "decided, not on record",
    "decided": "decided",
}
_NO_RUN: Final = "its run is not in the ledger (any more)"
