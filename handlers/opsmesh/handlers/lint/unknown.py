"""What `on_unknown` cannot do as it is written, or does to other runs."""

from __future__ import annotations

from collections.abc import Iterator

from opsmesh.handlers.lint.finding import Finding
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.yamlfile import Where


def lint(profile: Profile, places: Places) -> Iterator[Finding]:
    """Steps that say `on_unknown` themselves."""
    mode = profile.concurrency.mode
    for number, step in enumerate(profile.steps):
        where: Where = ("actions", number, "on_unknown")
        if not places.exists(where):
            continue
        if step.on_unknown == "retry" and profile.retry.attempts == 1:
            yield places.finding(
                "warning",
                where,
                "on_unknown: retry has no attempt to use: retry.attempts is 1, and the run is "
                "dead-lettered",
                hint="allow 2 attempts, or write fail, skip or ask",
            )
        if step.on_unknown == "ask" and mode in ("queued", "single"):
            others = "wait behind it" if mode == "queued" else "are skipped"
            yield places.finding(
                "note",
                where,
                f"while a run waits for an answer, later ones {others}: concurrency is {mode}",
                hint="with mode parallel they would pass it",
            )
