"""`opsmesh profile … --shipped`: the profiles that come with opsmesh, enabled one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.markup import escape

from opsmesh.cli import output
from opsmesh.handlers.lint.check import lint
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.profiles.profile import Profile, ProfileSet, load_file
from opsmesh.handlers.shipped import catalogue
from opsmesh.handlers.shipped.catalogue import Shipped, Standing
from opsmesh.producers import registry as producers
from opsmesh.router import paths
from opsmesh.router.settings import Settings
from opsmesh.schemas.registry import load_registry

#: What a person reads of a copy's standing.
WORDS: dict[Standing, str] = {
    "absent": "not enabled",
    "current": "enabled",
    "older": "enabled; there is a newer text",
    "edited": "enabled; yours, edited",
}


def ls(as_json: bool) -> None:
    """What there is, and what of it is in force here."""
    config = Path(paths.config_dir())
    rows = [_row(config, one) for one in catalogue.all_()]
    if as_json:
        output.as_json(rows)
        return
    table = [
        {**row, "on": " ".join(row["on"]), "wants": "; ".join(row["wants"]) or None} for row in rows
    ]
    output.table(table, ["profile", "state", "on", "description", "wants"], empty="none")
    output.note(
        "read one: opsmesh profile show --shipped PROFILE\n"
        "have it:  opsmesh profile enable --shipped PROFILE"
    )


def show(name: str, as_json: bool) -> None:
    """The text of one, as it comes."""
    one = _find(name)
    if as_json:
        output.as_json({**_row(Path(paths.config_dir()), one), "text": one.text})
        return
    output.console().print(escape(one.text.rstrip("\n")))


def enable(name: str, given: list[str], *, as_json: bool) -> None:
    """Copy one into the configuration folder, where the handlers take it up."""
    one, config = _find(name), Path(paths.config_dir())
    values = dict(_value(text) for text in given)
    before = catalogue.standing(config, one)
    if (other := catalogue.elsewhere(config, one.name)) is not None:
        output.fail(
            f"a profile {one.name} stands in {other} already",
            hint="give it another name there, or remove it",
        )
    if before == "edited":
        _edited(config, one, values)
        return
    try:
        path = catalogue.copy(config, one, values)
    except catalogue.ShippedError as error:
        output.fail(str(error), hint=error.hint, code=output.USAGE)
    if overrides.read().get(one.name) == "disabled":
        overrides.write(one.name, None)
    wants = _wants(one.profile, path)
    if as_json:
        output.as_json({"profile": one.name, "file": str(path), "before": before, "wants": wants})
        return
    console = output.console()
    console.print(escape(one.about))
    output.note(f"wrote {path}; it is yours to change")
    for want in wants:
        output.note(f"! {want}")
    output.note(
        f"see it: opsmesh profile ls · try it: opsmesh profile trigger {one.name} --event ID · "
        f"stop it: opsmesh profile disable {one.name}"
    )


def not_enabled() -> list[str]:
    """Shipped profiles that have all they want here, and are not in force."""
    config = Path(paths.config_dir())
    return [
        one.name
        for one in catalogue.all_()
        if catalogue.standing(config, one) == "absent" and not _wants(one.profile, None)
    ]


def _edited(config: Path, one: Shipped, values: dict[str, Any]) -> None:
    path = catalogue.path_of(config, one.name)
    if values:
        output.fail(f"{path} is yours: change its vars there", code=output.USAGE)
    if overrides.read().get(one.name) == "disabled":
        overrides.write(one.name, None)
    difference = catalogue.difference(config, one)
    output.note(f"{path} is yours, and stays as it is; it is enabled")
    if difference:
        output.note("the text that comes with this version differs:")
        output.console().print(escape(difference.rstrip("\n")))


def _find(name: str) -> Shipped:
    try:
        return catalogue.find(name)
    except catalogue.ShippedError as error:
        output.fail(str(error), hint=error.hint, code=output.NOT_FOUND)


def _row(config: Path, one: Shipped) -> dict[str, Any]:
    standing = catalogue.standing(config, one)
    state = WORDS[standing]
    if standing != "absent" and (chosen := overrides.read().get(one.name)) in (
        "disabled",
        "shadow",
    ):
        state = f"{chosen}; {state.partition('; ')[2]}".rstrip("; ")
    return {
        "profile": one.name,
        "state": state,
        "on": list(one.profile.on),
        "description": one.profile.description,
        "variables": dict(one.profile.vars),
        "wants": _wants(one.profile, None),
    }


def _wants(profile: Profile, path: Path | None) -> list[str]:
    """What this machine lacks for it: programs, and producers of what it listens to."""
    settings = Settings()
    registry = load_registry(Path(paths.config_dir(), "topics.yaml"))
    found = ProfileSet(profiles={profile.name: profile})
    if path is not None:
        found = load_file(path)
    wants = []
    if path is not None:
        wants = [
            finding.message
            for finding in lint(found, registry, folder=path.parent, host=settings.host, servers={})
            if finding.severity != "note"
        ]
    there = producers.discover().producers
    for topic in profile.on:
        known = registry.get(topic)
        owner = there.get(known.owner) if known is not None else None
        reason = owner.available() if owner is not None else None
        if reason is not None:
            wants.append(f"nothing says {topic} here: {reason}")
    return wants


def _value(text: str) -> tuple[str, Any]:
    name, equals, rest = text.partition("=")
    if not equals or not name:
        output.fail(f"--set {text!r} is not NAME=VALUE", code=output.USAGE)
    try:
        return name, json.loads(rest)
    except ValueError:
        return name, rest
