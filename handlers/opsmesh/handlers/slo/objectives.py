"""How a profile stands by its objectives. Pure: facts and a time in, figures out.

The terms are those of Google's SRE workbook (chapter 5): an indicator is the share of good ones
among all, the error budget is the share that may be bad, and the burn rate is how many times faster
than just-enough it is being spent. The one rule: of few runs nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeVar

import msgspec

Number = TypeVar("Number", int, float)
Kind = Literal["latency", "success", "false_positives"]
Verdict = Literal["ok", "burning", "breached", "too_few"]

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
#: What counts as burning: the rate over the long window and over the short one beside it, which
#: tells that it still goes on (SRE workbook, table 5-8).
BURNS: Final = ((HOUR_US, 5 * MINUTE_US, 14.4), (6 * HOUR_US, 30 * MINUTE_US, 6.0))
#: Burn rates that are shown.
SHOWN_US: Final = (5 * MINUTE_US, HOUR_US, 6 * HOUR_US, 24 * HOUR_US)


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: a share of good ones, 0 to 1. `within_us` is the limit of a latency."""

    name: str
    kind: Kind
    target: float
    within_us: int = 0

    @property
    def budget(self) -> float:
        """The share that may be bad; without what binary fractions make of 1 - 0.9."""
        return round(1.0 - self.target, 9)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A profile's objectives, over which time, and of how many runs at least."""

    objectives: tuple[Objective, ...]
    window_us: int
    min_runs: int
    on_breach: Literal["notify", "pause", "shadow"] = "notify"


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run: how long its first step waited (`waited_us`; None: not yet), whether
    it ended well (None: it has not ended, or was called off), whether somebody called it a false
    alarm. `at_us` is when the newest of that was stored."""

    run: str
    profile: str
    host: str
    at_us: int
    waited_us: int | None = None
    good: bool | None = None
    took_us: int | None = None
    false_positive: bool = False

    def bad(self, objective: Objective) -> bool | None:
        """Whether it counts against the objective; None when it does not count at all."""
        if objective.kind == "latency":
            return None if self.waited_us is None else self.waited_us > objective.within_us
        if self.good is None:
            return None
        return self.false_positive if objective.kind == "false_positives" else not self.good


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one objective stands. `good` is the share of good ones, `left` what is left of the error
    budget (1: all of it, 0: it is spent, below: more than that), `burn` the rates by microseconds
    looked back; both None of no runs."""

    objective: Objective
    verdict: Verdict
    runs: int
    bad: int
    good: float | None = None
    left: float | None = None
    burn: dict[int, float | None] = msgspec.field(default_factory=dict)
    #: The value at the objective's percentile, for a latency: microseconds.
    value_us: int | None = None


def standing(
    objective: Objective, facts: Iterable[Fact], *, policy: Policy, now_us: int
) -> Standing:
    """One objective's, over the policy's window that ends at `now_us`."""
    counted = [
        (fact, bad)
        for fact in facts
        if now_us - policy.window_us < fact.at_us <= now_us
        and (bad := fact.bad(objective)) is not None
    ]
    marks = [(fact.at_us, bad) for fact, bad in counted]
    wrong = sum(bad for _, bad in counted)
    if not counted:
        return Standing(objective=objective, verdict="too_few", runs=0, bad=0)
    share = wrong / len(counted)
    waits = sorted(fact.waited_us or 0 for fact, _ in counted)
    return Standing(
        objective=objective,
        verdict=_verdict(objective, marks, share, policy, now_us),
        runs=len(counted),
        bad=wrong,
        good=1.0 - share,
        left=1.0 - _times(share, objective.budget),
        burn={span: _burn(objective, marks, now_us - span)[0] for span in SHOWN_US},
        value_us=nearest_rank(waits, objective.target) if objective.kind == "latency" else None,
    )


def nearest_rank(ordered: Sequence[Number], share: float) -> Number:
    """The smallest value that so large a share is not above: of few values none is made up."""
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)]


def _verdict(
    objective: Objective,
    marks: Sequence[tuple[int, bool]],
    share: float,
    policy: Policy,
    now_us: int,
) -> Verdict:
    if len(marks) < policy.min_runs:
        return "too_few"
    if share > objective.budget:
        return "breached"
    for long, short, limit in BURNS:
        rate, runs = _burn(objective, marks, now_us - long)
        lately, _ = _burn(objective, marks, now_us - short)
        if runs >= policy.min_runs and (rate or 0.0) >= limit and (lately or 0.0) >= limit:
            return "burning"
    return "ok"


def _burn(
    objective: Objective, marks: Sequence[tuple[int, bool]], since_us: int
) -> tuple[float | None, int]:
    """The burn rate since then, None of no runs; and the runs."""
    found = [bad for at_us, bad in marks if at_us > since_us]
    if not found:
        return None, 0
    return _times(sum(found) / len(found), objective.budget), len(found)


def _times(share: float, budget: float) -> float:
    """How many budgets a share is; of no budget at all, each bad one is more than there is."""
    if budget > 0:
        return share / budget
    return 0.0 if share == 0 else float("inf")
