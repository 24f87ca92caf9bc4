"""What `approve:` does to other runs, or lets happen, that its text does not show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

from opsmesh.handlers.lint import expressions
from opsmesh.handlers.lint.finding import Finding
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.steps import Step
from opsmesh.handlers.profiles.yamlfile import Where
from opsmesh.router.topology import DAY, RUNS_TTL

#: How a later step names the end of a question.
_READS: Final = re.compile(r"\bsteps\.(\w+)\.approval\b")


def lint(profile: Profile, places: Places) -> Iterator[Finding]:
    """Steps that ask, and steps that read how it ended."""
    for number, step in enumerate(profile.steps):
        where: Where = ("actions", number)
        yield from _asks(profile, step, where, places)
        yield from _reads(profile, step, number, where, places)


def _asks(profile: Profile, step: Step, where: Where, places: Places) -> Iterator[Finding]:
    spec, mode = step.approve, profile.concurrency.mode
    if spec is None:
        return
    where = (*where, "approve")
    if spec.expires is None and mode in ("queued", "single"):
        others = "wait behind it" if mode == "queued" else "are skipped"
        yield places.finding(
            "warning",
            where,
            f"until somebody answers, later runs {others}: concurrency is {mode}, and the question "
            "never expires",
            hint="give it an end, like expires: 1h; with mode parallel they would pass it",
        )
    if spec.expires is not None and spec.expires > RUNS_TTL:
        yield places.finding(
            "warning",
            (*where, "expires"),
            f"expires after more than {RUNS_TTL / DAY:g} days: so long the ledger keeps a run that "
            "no handlers have",
            hint="a shorter time, or none",
        )
    if spec.otherwise == "run" and spec.by:
        yield places.finding(
            "warning",
            (*where, "otherwise"),
            f"when nobody answers in time it is run without the yes of {' or '.join(spec.by)}",
            hint="skip or fail, if it needs their yes",
        )
    if spec.otherwise == "run" and spec.expires is None:
        yield places.finding(
            "note",
            (*where, "otherwise"),
            "otherwise: run never comes: the question does not expire, and a refusal never runs it",
            hint="give it an end, like expires: 10m",
        )


def _reads(
    profile: Profile, step: Step, number: int, where: Where, places: Places
) -> Iterator[Finding]:
    text = json.dumps(step.action.describe(), default=str)
    if step.approve is not None:
        text += step.approve.prompt
    before = profile.steps[:number]
    silent = {one.id for one in before if one.approve is None and not expressions.gives(one)}
    for name in dict.fromkeys(_READS.findall(text)):
        if name in silent:
            yield places.finding(
                "warning",
                where,
                f"steps.{name}.approval is read, and step {name!r} has no approve: it asks nobody",
                hint=f"write approve: into step {name!r}, or name the step that asks",
            )
