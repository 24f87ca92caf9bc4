"""Verdicts for people, for programs, and for a CI server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final
from xml.etree import ElementTree

import msgspec

from opsmesh.handlers.cases.cases import Case
from opsmesh.handlers.cases.diff import Verdict, clock
from opsmesh.handlers.cases.judge import Moment, Played
from opsmesh.schemas.nearest import did_you_mean

#: Decisions that a failing case shows: the first, and the last.
FIRST: Final = 30
LAST: Final = 10


def title(verdict: Verdict) -> str:
    """`tests/a.yaml:12: the case's name`"""
    case = verdict.case
    return f"{case.file}:{case.line}: {case.name}"


def explain(verdict: Verdict) -> list[str]:
    """Why a case fails: each difference, then every decision with its clause and reason."""
    lines: list[str] = []
    for one in verdict.differences:
        if one.counts and one.expected != one.actual:
            lines.append(f"{one.what}: expected {one.expected}, got {one.actual}")
        else:
            lines.append(one.what)
        lines += [f"  {line}" for line in one.lines]
    case = verdict.case
    lines.append(f"what {case.profile.name} decided on {case.host}:")
    lines += [f"  {line}" for line in decisions(case, verdict.played)]
    return lines


def decisions(case: Case, played: Played) -> Iterator[str]:
    """A line for each event and each time that came; hosts and workspaces where they differ."""
    events = [given.event for given in case.given]
    apart = [
        [text or "-" for text in texts]
        for texts in ([e.host for e in events], [e.workspace for e in events])
        if len(set(texts)) > 1
    ]
    rows = [_row(moment, apart, case.profile.rule.listens) for moment in played.moments]
    cut = len(rows) - FIRST - LAST
    widths = [max((len(row[n]) for row in rows), default=0) for n in range(5 + len(apart))]
    for n, row in enumerate(rows):
        if cut > 1 and FIRST <= n < FIRST + cut:
            if n == FIRST:
                yield f"… {cut} more"
            continue
        cells = (cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
        yield "  ".join(cells).rstrip()
    for stage, due_us in played.waiting:
        yield f"the case ends while {stage} waits, until {clock(due_us)}"


def record(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON values."""
    case, played = verdict.case, verdict.played
    return {
        "file": case.file,
        "line": case.line,
        "case": case.name,
        "profile": case.profile.name,
        "passed": verdict.passed,
        "differences": [
            {"what": one.what, "expected": one.expected, "actual": one.actual}
            for one in verdict.differences
        ],
        "fires": [
            {"at": clock(f.at_us), "events": f.events, "arguments": f.arguments}
            for f in played.firings
        ],
        "decisions": [
            {
                "at": clock(moment.at_us),
                "event": moment.seq,
                "topic": moment.topic,
                "decision": None
                if moment.decision is None
                else msgspec.json.decode(moment.decision.encode()),
            }
            for moment in played.moments
        ],
    }


def junit(verdicts: Iterable[Verdict]) -> bytes:
    """The verdicts in JUnit's XML; a suite for each file."""
    found = list(verdicts)
    top = ElementTree.Element("testsuites", name="opsmesh profile test")
    for file, some in groupby(found, key=lambda verdict: verdict.case.file):
        group = list(some)
        failures = sum(not verdict.passed for verdict in group)
        counts = {"tests": str(len(group)), "failures": str(failures), "errors": "0"}
        suite = ElementTree.SubElement(top, "testsuite", {"name": file, **counts})
        for verdict in group:
            case = verdict.case
            place = {"classname": case.profile.name, "file": file, "line": str(case.line)}
            element = ElementTree.SubElement(suite, "testcase", {"name": _xml(case.name), **place})
            if not verdict.passed:
                message = ", ".join(one.what for one in verdict.differences)
                failure = ElementTree.SubElement(element, "failure", message=_xml(message))
                failure.text = _xml("\n".join(explain(verdict)))
    ElementTree.indent(top)
    return bytes(ElementTree.tostring(top, encoding="utf-8", xml_declaration=True)) + b"\n"


def _row(moment: Moment, apart: list[list[str]], listens: Sequence[str]) -> list[str]:
    decision = moment.decision
    who = "timer" if moment.seq is None else f"event {moment.seq}"
    told = ["" if moment.seq is None else texts[moment.seq - 1] for texts in apart]
    start = [clock(moment.at_us), who, moment.topic, *told]
    if decision is None:
        near = did_you_mean(moment.topic, listens)
        return [*start, "-", "-", f"not for this profile{near}"]
    values = {name: value for name, value in decision.values.items() if decision.clause == "where"}
    read = ", ".join(f"{name} = {_short(value)}" for name, value in values.items())
    reason = f"{decision.reason} ({read})" if read else decision.reason
    return [*start, decision.outcome, decision.clause, reason]


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:79] + "…"


def _xml(text: str) -> str:
    """Without the control characters that XML 1.0 does not have."""
    return "".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text)
