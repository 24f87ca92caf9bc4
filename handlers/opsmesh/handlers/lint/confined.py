"""Arguments that an event could make an option, and sandboxes and limits that this host cannot
give. Such a step is not started when it comes to it; the file may be written for another host, so
that the latter is a warning, and with `strict` an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from opsmesh.handlers.actions.arguments import open_places
from opsmesh.handlers.actions.command import Command
from opsmesh.handlers.lint.finding import Finding, Severity
from opsmesh.handlers.lint.places import Places
from opsmesh.handlers.profiles.profile import Profile
from opsmesh.handlers.profiles.yamlfile import Where
from opsmesh.handlers.sandbox import prepare

#: Values that cannot begin with a `-`: the envelope, or what makes them, sees to that.
_HARMLESS: Final = re.compile(
    r"\$\{\{\s*(?:event\.(?:topic|id|severity|ts_utc|hops)|size\(events\)"
    r"|steps\.\w+\.(?:path|evidence_path|exit_code))\s*\}\}.*",
    re.DOTALL,
)


def lint(profile: Profile, places: Places, *, strict: bool = False) -> Iterator[Finding]:
    """The steps that start programs."""
    for number, step in enumerate(profile.steps):
        if not isinstance(step.action, Command):
            continue
        spec: Mapping[str, Any] = step.action.describe()
        base: Where = ("actions", number, Command.key)
        argv_at: Where = (*base, "argv") if places.exists((*base, "argv")) else base
        if not spec.get("options_from_events"):
            yield from _options(spec["argv"], argv_at, places)
        yield from _walls(step.action, spec, base, places, "error" if strict else "warning")


def _options(argv: list[str], where: Where, places: Places) -> Iterator[Finding]:
    for place in open_places(argv):
        if not _HARMLESS.fullmatch(argv[place]):
            yield places.finding(
                "warning",
                (*where, place),
                f"argument {place} comes from an event: the step fails when it begins with '-'",
                hint=f"write '--' before it, if {argv[0]!r} takes that, or "
                "options_from_events: true if it is meant",
            )


def _walls(
    action: Command, spec: Mapping[str, Any], base: Where, places: Places, severity: Severity
) -> Iterator[Finding]:
    confinement = action.confinement
    at = next(
        (key for key in ("sandbox", "memory", "cpu", "tasks") if places.exists((*base, key))), ""
    )
    if why := prepare.lacking(confinement):
        yield places.finding(
            severity,
            (*base, at) if at else base,
            f"this step cannot start here: {why}",
            hint="it never runs without; let run_on name a host that can",
        )
    elif "RLIMIT_AS of each process" in prepare.enforced(confinement).values():
        yield places.finding(
            "note",
            (*base, "memory"),
            f"memory: {spec['memory']} bytes hold for each process by itself here: no systemd "
            "manager counts them together",
        )
