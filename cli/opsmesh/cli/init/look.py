"""What `opsmesh init` finds on this machine: tools that are heard, tools that can be wired, and how
the mesh stands.

It reads, and starts nothing. What is written is planned here, so that what is shown is what is
done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from opsmesh.cli import components
from opsmesh.handlers.profiles import starter
from opsmesh.producers import registry, wirings
from opsmesh.producers.errors import ProducerError
from opsmesh.producers.install import plan
from opsmesh.producers.install import record as records
from opsmesh.producers.install import state as states
from opsmesh.producers.install.plan import Change
from opsmesh.producers.wiring import Wiring
from opsmesh.router import paths, running
from opsmesh.router.settings import Settings

#: Units of the user's own systemd: a way to run the mesh, and no tool of it.
UNITS: Final = "systemd"
#: Why there is nothing to make of the mesh: it is units already.
STOPPED: Final = "they are installed, and do not run"
#: What is no tool that somebody works with: it is asked apart, or not at all.
_NO_TOOLS: Final = (UNITS, "systemd-system", "profiles-schema")


@dataclass(frozen=True, kw_only=True)
class Heard:
    """A producer that can run here."""

    name: str
    description: str
    topics: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool that is here and not wired, with all that would be written for it."""

    name: str
    description: str
    topics: Sequence[str]
    wiring: Wiring = field(repr=False)
    changes: Sequence[Change] = field(repr=False)

    @property
    def files(self) -> list[Path]:
        """What would be written, or changed."""
        return [change.path for change in self.changes if change.needed]

    @property
    def system(self) -> bool:
        """Whether it writes into the system's own folders: that is proposed to nobody."""
        return any(change.root for change in self.changes)


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look. `offered` can be wired by this user; what `system` holds is root's to write, and
    left to root; `troubles` says of a tool why it can neither be wired nor left."""

    host: str
    heard: Sequence[Heard]
    absent: dict[str, str]
    offered: Sequence[Tool]
    system: Sequence[Tool]
    wired: Sequence[str]
    troubles: dict[str, str]
    #: Where profiles would be written; None where there are some.
    profiles: Path | None
    #: Whether a mesh runs here already.
    runs: bool
    #: Why the mesh cannot be units of systemd; None when it can, and is not.
    no_units: str | None


def look() -> Look:
    """Look at this machine."""
    settings = Settings()
    offered, system, wired, troubles = _tools()
    asked = {tool.name for tool in (*offered, *system)}
    found = registry.discover().producers
    reasons = components.producers(settings)
    heard = [
        Heard(name=name, description=found[name].description, topics=tuple(found[name].topics))
        for name, why in reasons.items()
        if why is None and name not in asked
    ]
    return Look(
        host=settings.host,
        heard=heard,
        absent={n: why for n, why in reasons.items() if why is not None and n not in asked},
        offered=offered,
        system=system,
        wired=wired,
        troubles=troubles,
        profiles=starter.place(Path(paths.config_dir())),
        runs=running.mesh() is not None,
        no_units=_no_units(),
    )


def _tools() -> tuple[list[Tool], list[Tool], list[str], dict[str, str]]:
    found = wirings.discover()
    offered: list[Tool] = []
    system: list[Tool] = []
    wired: list[str] = []
    troubles = dict(found.problems)
    for name, wiring in found.wirings.items():
        if name in _NO_TOOLS:
            continue
        try:
            if wirings.missing(name, wiring) is not None:
                continue
            pieces, record = wirings.pieces(name, wiring), records.load(name)
            state = states.look(name, pieces, record).state
            if state == "wired":
                wired.append(name)
            elif state == "not wired" and pieces:  # without, it is wired for what options name
                tool = Tool(
                    name=name,
                    description=wiring.description,
                    topics=tuple(wiring.topics),
                    wiring=wiring,
                    changes=plan.to_install(name, pieces, record, force=False),
                )
                (system if tool.system else offered).append(tool)
            elif state != "not wired":
                troubles[name] = f"{state}: opsmesh install {name}"
        except ProducerError as error:
            troubles[name] = str(error)
    return offered, system, wired, troubles


def _no_units() -> str | None:
    wiring = wirings.discover().wirings.get(UNITS)
    if wiring is None:
        return "there are no units"
    try:
        if why := wirings.missing(UNITS, wiring):
            return why
        look = states.look(UNITS, wirings.pieces(UNITS, wiring), records.load(UNITS))
    except ProducerError as error:
        return str(error)
    if look.state == "wired":
        return STOPPED
    return None if look.state == "not wired" else f"they are {look.state}: opsmesh install {UNITS}"
