"""`opsmesh profile … --shipped`: the profiles that come with opsmesh, enabled one by one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from rich.markup import escape

from opsmesh.cli import output
from opsmesh.cli.pairs import pair
from opsmesh.handlers.process import minimal_environment
from opsmesh.handlers.profiles import overrides
from opsmesh.handlers.shipped import catalogue
from opsmesh.handlers.shipped.catalogue import Shipped, Standing
from opsmesh.producers import registry as producers
from opsmesh.producers.registry import Found
from opsmesh.router import paths

#: What a person reads of a copy's standing.
WORDS: dict[Standing, str] = {
    "absent": "not enabled",
    "current": "enabled",
    "older": "enabled, a newer text is here",
    "edited": "enabled, edited by you",
}


def ls(as_json: bool) -> None:
    """What there is, and what of it is in force here."""
    config = Path(paths.config_dir())
    found = producers.discover()
    rows = [_row(config, one, found) for one in catalogue.all_()]
    if as_json:
        output.as_json(rows)
        return
    table = [{**row, "lacks": "; ".join(row["lacks"]) or None} for row in rows]
    output.table(table, ["profile", "state", "title", "lacks"], empty="none")
    output.note(
        "read one: opsmesh profile show --shipped PROFILE\n"
        "have it:  opsmesh profile enable --shipped PROFILE"
    )


def show(name: str, as_json: bool) -> None:
    """The text of one, as it comes."""
    one = _find(name)
    if as_json:
        row = _row(Path(paths.config_dir()), one, producers.discover())
        output.as_json({**row, "text": one.text})
        return
    output.console().print(escape(one.text.rstrip("\n")))


def enable(name: str, given: list[str], *, as_json: bool) -> None:
    """Copy one into the configuration folder, where the handlers take it up."""
    one, config = _find(name), Path(paths.config_dir())
    values = dict(_value(text) for text in given)
    before = catalogue.standing(config, one)
    if (other := catalogue.elsewhere(config, one)) is not None:
        names = " and ".join(one.profiles)
        output.fail(
            f"{other} defines {names} already", hint="give it another name there, or remove it"
        )
    path = catalogue.path_of(config, one.name)
    difference = ""
    if before != "edited":
        try:
            catalogue.copy(config, one, values)
        except catalogue.ShippedError as error:
            output.fail(str(error), hint=error.hint, code=output.USAGE)
    elif values:
        output.fail(f"{path} is yours: change its vars there", code=output.USAGE)
    else:
        difference = catalogue.difference(config, one)
    for profile in one.profiles:
        if overrides.read().get(profile) == "disabled":
            overrides.write(profile, None)
    lacks = _lacks(one, producers.discover())
    if as_json:
        facts = {"profile": one.name, "file": str(path), "before": before}
        output.as_json({**facts, "lacks": lacks, "difference": difference})
        return
    _told(one, path, before, difference, lacks)


def not_enabled() -> list[str]:
    """Shipped sets that have all they need here, and are not in force."""
    config, found = Path(paths.config_dir()), producers.discover()
    return [
        one.name
        for one in catalogue.all_()
        if catalogue.standing(config, one) == "absent" and not _lacks(one, found)
    ]


def _told(one: Shipped, path: Path, before: Standing, difference: str, lacks: list[str]) -> None:
    if before == "edited":
        output.note(f"{path} is yours, and stays as it is; it is enabled")
        if difference:
            output.note("the text that comes with this version differs:")
            output.console().print(escape(difference.rstrip("\n")))
        return
    console = output.console()
    console.print(f"[bold]{escape(one.about.title)}[/]")
    for line in one.about.changes:
        console.print(f"  · {escape(line)}")
    for lack in lacks:
        console.print(f"  [yellow]![/] {escape(lack)}")
    for program, what in one.about.optional.items():
        if not _there(program):
            console.print(f"  [dim]without {escape(program)}: no {escape(what)}[/]")
    for need in one.about.needs:
        console.print(f"  [dim]it needs {escape(need)}[/]")
    first = next(iter(one.profiles))
    output.note(
        f"wrote {path}; it is yours to change, and taken up at once\n"
        f"look: opsmesh profile ls · try it: opsmesh profile trigger {first} --event ID · "
        f"stop it: opsmesh profile disable {first}"
    )


def _find(name: str) -> Shipped:
    try:
        return catalogue.find(name)
    except catalogue.ShippedError as error:
        output.fail(str(error), hint=error.hint, code=output.NOT_FOUND)


def _row(config: Path, one: Shipped, found: Found) -> dict[str, Any]:
    standing = catalogue.standing(config, one)
    chosen = overrides.read()
    off = [name for name in one.profiles if chosen.get(name) in ("disabled", "shadow")]
    state = WORDS[standing]
    if standing != "absent" and off:
        state = ", ".join(f"{name} {chosen[name]}" for name in off)
    return {
        "profile": one.name,
        "state": state,
        "title": one.about.title,
        "profiles": list(one.profiles),
        "on": list(one.topics),
        "variables": one.variables,
        "changes": list(one.about.changes),
        "lacks": _lacks(one, found),
    }


def _lacks(one: Shipped, found: Found) -> list[str]:
    """What this machine has not that it is no use without."""
    lacks = [f"{name} is not installed" for name in one.about.programs if not _there(name)]
    for name in one.about.producers:
        producer = found.producers.get(name)
        reason = found.problems.get(name) if producer is None else producer.available()
        if reason is not None:
            lacks.append(f"producer {name}: {reason}")
    return lacks


def _there(program: str) -> bool:
    return shutil.which(program, path=minimal_environment().get("PATH", os.defpath)) is not None


def _value(text: str) -> tuple[str, Any]:
    found = pair(text)
    if found is None or not found[0]:
        output.fail(f"--set {text!r} is not NAME=VALUE", code=output.USAGE)
    return found
