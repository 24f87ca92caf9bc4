"""Profiles that another one runs, by a step or by a button, and that are not among these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opsmesh.handlers.lint.finding import Finding
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.yamlfile import Where
from opsmesh.schemas.nearest import nearest


def lint(profile: Profile, places: Places, names: Sequence[str]) -> Iterator[Finding]:
    """Names that no profile has; another host's files may have them, so that it is a warning."""
    for where, name in _named(profile, places):
        if name not in names:
            near = nearest(name, names)
            yield places.finding(
                "warning",
                where,
                f"no profile {name!r} is among these",
                hint=f"did you mean {near!r}?" if near else "its handlers must have it",
            )


def _named(profile: Profile, places: Places) -> Iterator[tuple[Where, str]]:
    for number, step in enumerate(profile.steps):
        spec = step.action.describe()
        at: Where = ("actions", number, step.action.key)
        if step.action.key == "trigger":
            inner: Where = (*at, "profile")
            yield inner if places.exists(inner) else at, spec["profile"]
        elif step.action.key == "notify":
            for index, button in enumerate(spec["actions"]):
                if isinstance(button, dict):
                    yield (*at, "actions", index, "trigger"), button["trigger"]
