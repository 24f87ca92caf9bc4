"""`install --list` and `--check`: each tool, and how far it is wired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opsmesh.cli import output
from opsmesh.cli.install import listening
from opsmesh.producers import registry, wirings
from opsmesh.producers.errors import ProducerError
from opsmesh.producers.install import record as records
from opsmesh.producers.install import state as states
from opsmesh.producers.wiring import Wiring

#: States that `install TOOL`, or `uninstall`, has to do with.
WRONG: Final = ("stale", "edited", "incomplete", "broken")
_COLOURS: Final = {"wired": "green", **dict.fromkeys(WRONG, "yellow")}


def chosen(tools: Sequence[str] | None, found: wirings.Found) -> list[dict[str, Any]]:
    """The rows of these tools, or of all that are wired: by this user, or as root."""
    if tools:
        return [of(name, found) for name in tools]
    installed = records.installed()
    rows = [of(name, found) for name in sorted({*installed, *found.wirings})]
    return [row for row in rows if row["tool"] in installed or row["state"] == "wired"]


def every(found: wirings.Found) -> list[dict[str, Any]]:
    """A row for each tool that can be wired, and for each that needs nothing."""
    rows = [of(name, found) for name in sorted({*found.wirings, *found.problems})]
    return rows + [
        _needs_nothing(name) for name in registry.discover().producers if name not in found.wirings
    ]


def of(name: str, found: wirings.Found) -> dict[str, Any]:
    """One tool."""
    if name in found.problems:
        return _row(name, "broken", found.problems[name])
    if (wiring := found.wirings.get(name)) is None and name not in records.installed():
        return _needs_nothing(name)
    if wiring is None:
        return _row(name, "stale", f"its plug-in is gone: opsmesh uninstall {name}")
    try:
        return _wiring(name, wiring)
    except ProducerError as error:
        return _row(name, "broken", str(error))


def show(rows: list[dict[str, Any]], *, json: bool) -> None:
    """For people, or for programs."""
    if json:
        output.as_json(rows)
        return
    output.table(
        rows,
        ("tool", "state", "detail"),
        empty="nothing is installed: opsmesh install --list",
        style=lambda name, value: _COLOURS.get(value, "") if name == "state" else "",
    )


def _needs_nothing(producer: str) -> dict[str, Any]:
    silent = listening.silent(producer)
    detail = f"its producer does not run: {silent}" if silent else "its producer runs"
    return _row(producer, "needs nothing", detail, silent=silent)


def _wiring(name: str, wiring: Wiring) -> dict[str, Any]:
    record = records.load(name)
    if missing := wirings.missing(name, wiring):
        return _row(name, "stale" if record else "not here", missing)
    look = states.look(name, wirings.pieces(name, wiring), record)
    detail, silent = look.wrong if look.state in WRONG else wiring.description, None
    if look.state == "wired" and (silent := listening.silent(wiring.producer)):
        detail = f"producer {wiring.producer} does not run: {silent}"
    pieces = [{"path": str(one.path), "state": one.state} for one in look.pieces]
    return _row(name, look.state, detail, pieces=pieces, silent=silent)


def _row(name: str, state: str, detail: str, **more: Any) -> dict[str, Any]:
    return {"tool": name, "state": state, "detail": detail, "pieces": [], "silent": None, **more}
