"""What a case expects against what happened in it: the verdict, and every difference.

A list is complete and in order. Of each of its entries only what it names is compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from opsmesh.handlers.cases import arguments as case_arguments
from opsmesh.handlers.cases.arguments import ABSENT
from opsmesh.handlers.cases.cases import Case, us
from opsmesh.handlers.cases.judge import Firing, Moment, Played, play
from opsmesh.handlers.cases.spec import FiringSpec, MissSpec
from opsmesh.schemas import durations

E = TypeVar("E")
A = TypeVar("A")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that is not as expected. `lines` show it: `- ` was expected and is not there, `+ `
    is there and was not expected, two spaces stand before what is as it should be. With `counts`
    both sides are numbers of things."""

    what: str
    expected: Any
    actual: Any
    lines: tuple[str, ...] = ()
    counts: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a case went."""

    case: Case
    played: Played
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Everything was as expected."""
        return not self.differences


def judge(case: Case) -> Verdict:
    """Play the case and compare."""
    played = play(case)
    found = (*_fires(case, played), *_broken(played), *_suppressed(case, played))
    return Verdict(case=case, played=played, differences=found)


def clock(at_us: int) -> str:
    """A time of the case's clock: `0s`, `1m30s`."""
    return durations.text(at_us / 1e6) if at_us else "0s"


def _fires(case: Case, played: Played) -> Iterator[Difference]:
    expected, firings = case.fires, played.firings
    if expected is None:
        return
    if isinstance(expected, int):
        if expected != len(firings):
            lines = tuple(f"  {_firing(firing)}" for firing in firings)
            yield _counts("fires", expected, len(firings), lines)
        return
    rows = _aligned(expected, firings, _is_firing)
    if any(one is None or other is None for one, other in rows):
        lines = _marked(rows, _expected_firing, _firing)
        yield _counts("fires", len(expected), len(firings), lines)
    for spec, firing in rows:
        if spec is not None and firing is not None:
            yield from _arguments(case, spec, firing)


def _arguments(case: Case, spec: FiringSpec, firing: Firing) -> Iterator[Difference]:
    for step in case.profile.steps:
        if step.id not in spec.arguments:
            continue
        found = case_arguments.differences(step, spec.arguments[step.id], firing.arguments[step.id])
        for path, expected, actual in found:
            yield Difference(
                what=f"arguments at {clock(firing.at_us)}: {path}",
                expected=expected,
                actual=None if actual is ABSENT else actual,
                lines=(f"- {_json(expected)}", f"+ {_json(actual)}"),
            )


def _broken(played: Played) -> Iterator[Difference]:
    for firing in played.firings:
        for step, problems in firing.broken.items():
            yield Difference(
                what=f"step {step} at {clock(firing.at_us)} cannot be run",
                expected=None,
                actual=problems,
                lines=tuple(f"  {problem}" for problem in problems),
            )


def _suppressed(case: Case, played: Played) -> Iterator[Difference]:
    expected, misses = case.suppressed, played.misses
    if expected is None:
        return
    if isinstance(expected, int):
        if expected != len(misses):
            yield _counts("suppressed", expected, len(misses))
    elif isinstance(expected, Mapping):
        counts = Counter(str(m.decision.outcome) for m in misses if m.decision)
        for outcome, count in expected.items():
            if counts[outcome] != count:
                yield _counts(f"suppressed.{outcome}", count, counts[outcome])
    else:
        rows = _aligned(expected, misses, _is_miss)
        if any(one is None or other is None for one, other in rows):
            lines = _marked(rows, _expected_miss, _miss)
            yield _counts("suppressed", len(expected), len(misses), lines)


def _counts(what: str, expected: int, actual: int, lines: tuple[str, ...] = ()) -> Difference:
    return Difference(what=what, expected=expected, actual=actual, lines=lines, counts=True)


def _is_firing(spec: FiringSpec, firing: Firing) -> bool:
    return _is(spec, firing.at_us, firing.decision) and spec.events in (None, firing.events)


def _is_miss(spec: MissSpec, moment: Moment) -> bool:
    decision = moment.decision
    if decision is None or spec.outcome not in (None, decision.outcome):
        return False
    return _is(spec, moment.at_us, decision)


def _is(spec: FiringSpec | MissSpec, at_us: int, decision: Any) -> bool:
    return (
        (spec.at is None or us(spec.at) == at_us)
        and spec.topic in (None, decision.topic)
        and spec.clause in (None, decision.clause)
        and (spec.reason is None or spec.reason in decision.reason)
    )


def _aligned(
    expected: Sequence[E], actual: Sequence[A], same: Callable[[E, A], bool]
) -> list[tuple[E | None, A | None]]:
    """Both lists beside each other, with as many pairs as can be; None where one has a gap."""
    if len(expected) == len(actual) and all(map(same, expected, actual)):
        return list(zip(expected, actual, strict=True))
    rows, columns = len(expected), len(actual)
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            pair = best[i + 1][j + 1] + 1 if same(expected[i], actual[j]) else 0
            best[i][j] = max(pair, best[i + 1][j], best[i][j + 1])
    found: list[tuple[E | None, A | None]] = []
    i = j = 0
    while i < rows or j < columns:
        if i < rows and j < columns and same(expected[i], actual[j]):
            # a pair that is there is never worse than a gap
            found.append((expected[i], actual[j]))
            i, j = i + 1, j + 1
        elif i < rows and best[i][j] == best[i + 1][j]:
            found.append((expected[i], None))
            i += 1
        else:
            found.append((None, actual[j]))
            j += 1
    return found


def _marked(
    rows: Sequence[tuple[E | None, A | None]],
    expected: Callable[[E], str],
    actual: Callable[[A], str],
) -> tuple[str, ...]:
    lines = []
    for one, other in rows:
        if other is None:
            lines.append(f"- {expected(one)}" if one is not None else "")
        else:
            lines.append(f"{'+' if one is None else ' '} {actual(other)}")
    return tuple(lines)


def _firing(firing: Firing) -> str:
    decision = firing.decision
    many = f", {firing.events} events" if firing.events > 1 else ""
    return f"{clock(firing.at_us)} {decision.topic} by {decision.clause}{many}"


def _expected_firing(spec: FiringSpec) -> str:
    parts = _named(spec)
    if spec.events is not None:
        parts.append(f"{spec.events} event{'s' if spec.events > 1 else ''}")
    return ", ".join(parts) or "any firing"


def _miss(moment: Moment) -> str:
    decision = moment.decision
    if decision is None:
        return f"{clock(moment.at_us)} {moment.topic}"
    told = f"{decision.outcome} by {decision.clause}: {decision.reason}"
    return f"{clock(moment.at_us)} {decision.topic} {told}"


def _expected_miss(spec: MissSpec) -> str:
    parts = _named(spec)
    if spec.outcome is not None:
        parts.append(spec.outcome)
    return ", ".join(parts) or "any event that does not fire"


def _named(spec: FiringSpec | MissSpec) -> list[str]:
    head = [] if spec.at is None else [clock(us(spec.at))]
    head += [spec.topic] if spec.topic else []
    head += [f"by {spec.clause}"] if spec.clause else []
    reason = [f"a reason with {spec.reason!r}"] if spec.reason else []
    return [*([" ".join(head)] if head else []), *reason]


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):  # nothing, and text that no JSON can hold
        return ascii(value)
