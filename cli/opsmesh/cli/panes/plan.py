"""What stands in which pane: it knows no multiplexer, only commands.

The ops dashboard is somebody else's program: it is looked for, and never needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

#: Where an ops dashboard is looked for, when no `panes.dashboard` is set.
DASHBOARD: Final = Path("~/src/opsctrl")
#: What may start it there, the first that is an executable file.
STARTS: Final = ("opsctrl", "bin/opsctrl", ".venv/bin/opsctrl", "target/release/opsctrl", "run")
#: How far back the alerts go.
ALERTS_SINCE: Final = "1h"


@dataclass(frozen=True, kw_only=True)
class Pane:
    """One pane: its title, its command, and the folder that it begins in."""

    name: str
    argv: Sequence[str]
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Panes:
    """All of them; no `dashboard` where none was found."""

    control: Pane
    oracle: Pane
    alerts: Pane
    dashboard: Pane | None

    @property
    def all(self) -> list[Pane]:
        """In the order of reading."""
        found = [self.control, self.oracle, self.dashboard, self.alerts]
        return [pane for pane in found if pane is not None]


def plan(dashboard: Sequence[str] | None) -> Panes:
    """The panes of this machine; `dashboard` is the setting."""
    return Panes(
        control=_control(),
        oracle=Pane(name="status oracle", argv=ours("status", "--watch")),
        alerts=Pane(
            name="alerts", argv=ours("tail", "--severity", "error", "--since", ALERTS_SINCE)
        ),
        dashboard=_dashboard(dashboard),
    )


def ours(*words: str) -> list[str]:
    """A command of this opsmesh: a multiplexer's PATH may have another, or none."""
    program = Path(sys.executable).with_name("opsmesh")
    return [str(program) if program.is_file() else "opsmesh", *words]


def _control() -> Pane:
    from opsmesh.cli.main import COMMANDS

    if "top" in COMMANDS and find_spec("textual") is not None:
        return Pane(name="control", argv=ours("top"))
    # the verdict stands beside it already
    return Pane(name="control", argv=ours("tail", "--since", ALERTS_SINCE))


def _dashboard(setting: Sequence[str] | None) -> Pane | None:
    if setting is not None:
        argv = [os.path.expanduser(word) for word in setting]  # noqa: PTH111 (words, not paths)
        return Pane(name="ops dashboard", argv=argv) if argv else None
    place = DASHBOARD.expanduser()
    for start in (place, *(place / name for name in STARTS)):
        if start.is_file() and os.access(start, os.X_OK):
            folder = place if place.is_dir() else place.parent
            return Pane(name="ops dashboard", argv=[str(start)], folder=folder)
    return None
