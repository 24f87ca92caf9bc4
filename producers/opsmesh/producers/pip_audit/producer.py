"""The pip-audit producer: asks when what a project depends on has changed, and every day.

A project that got no answer is asked again, ever more rarely, and is never taken for clean. When
answers stay away for two rounds, that is told.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opsmesh.producers import folders
from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, ProducerError
from opsmesh.producers.pip_audit import program, project, telling
from opsmesh.producers.pip_audit.answer import INCOMPLETE, TOOL, VULNERABLE
from opsmesh.producers.troubles import Troubles
from opsmesh.producers.watch import Watch
from opsmesh.schemas import durations

#: How often to ask: new advisories come without any change here.
EVERY: Final = "24h"
#: What a package manager writes is complete after so long without a change.
SETTLE: Final = "10s"
#: Seconds until a project that got no answer is asked again: first; each time twice as long.
RETRY: Final = 300.0
#: Rounds without an answer after which that is told.
SILENT_AFTER: Final = 2


@dataclass
class Project:
    """One project. `asked`: the state of its files at the last answer; `due`: wall clock."""

    folder: Path
    asked: str
    seen: str
    due: float
    since: float
    wait: float = RETRY


class PipAudit:
    """See `contract.Producer`."""

    name = TOOL
    description = "dependencies of your Python projects that are known to be vulnerable"
    topics: Sequence[str] = (VULNERABLE, INCOMPLETE)

    def __init__(
        self, *, path: str = "", every: str = EVERY, settle: str = SETTLE, options: str = ""
    ) -> None:
        """Options as text.

        `path`: the projects' folders, several with commas. `every`: how often to ask, beside after
        changes. `settle`: how long after a change. `options`: arguments for pip-audit.
        """
        self._folders = folders.chosen(path)
        self._every = _seconds("every", every)
        if not self._every:
            raise OptionError("every", "0 would ask without end")
        self._settle = _seconds("settle", settle)
        self._options = options.split()

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if not self._folders:
            return folders.unset(self.name)
        try:
            for folder in self._folders:
                program.find(folder)
        except program.NoPipAudit as error:
            return str(error)
        return None

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        troubles = Troubles(self.name)
        projects = [self._project(folder) for folder in self._folders]
        watch, watched = None, list[Path]()
        try:
            while True:
                if watched != (watched := _watched(self._folders)) or watch is None:
                    if watch is not None:
                        watch.close()
                    watch = _watch(watched)
                for one in projects:
                    self._mind(one, emit, troubles)
                watch.wait(max(0.0, min(one.due for one in projects) - time.time()))
        finally:
            if watch is not None:
                watch.close()

    def _project(self, folder: Path) -> Project:
        facts = telling.facts(folder)
        asked, audited = facts.get(telling.ASKED), facts.get(telling.AUDITED)
        at = float(audited) if isinstance(audited, int | float) else 0.0
        # a clock that was wrong keeps nobody from being asked
        due = min(at + self._every, time.time() + self._every) if at else 0.0
        known = str(asked or "")
        return Project(folder, asked=known, seen=known, due=due, since=at or time.time())

    def _mind(self, one: Project, emit: Emit, troubles: Troubles) -> None:
        """Ask, when its time has come; a change brings it nearer, and each further one puts it
        off."""
        state, now = project.state(one.folder), time.time()
        if state != one.seen:
            one.seen = state
            if state != one.asked:
                one.due = now + self._settle
        if now >= one.due:
            self._ask(one, emit, troubles)

    def _ask(self, one: Project, emit: Emit, troubles: Troubles) -> None:
        state = project.state(one.folder)
        try:
            wanted = project.read(one.folder)
            audited = program.audit(one.folder, wanted, self._options)
        except ProducerError as error:
            why = f"{one.folder} was not audited, which does not mean clean: {error}"
            troubles.note(str(one.folder), why)
            self._unanswered(one, str(error), emit)
            return
        troubles.over(str(one.folder))
        telling.tell(one.folder, audited, emit, asked=state)
        one.asked = one.seen = state
        one.wait, one.since = RETRY, time.time()
        one.due = one.since + self._every

    def _unanswered(self, one: Project, reason: str, emit: Emit) -> None:
        now = time.time()
        one.due = now + min(one.wait, self._every)
        one.wait *= 2
        if now - one.since > SILENT_AFTER * self._every:
            telling.tell_silence(one.folder, reason, emit)


def _watched(chosen: Sequence[Path]) -> list[Path]:
    """The folders whose entries matter: each project's, that of split requirements, and what is
    installed in its environment."""
    places = [(one, one / "requirements", project.site_packages(one)) for one in chosen]
    return [path for place in places for path in place if path is not None]


def _watch(paths: Sequence[Path]) -> Watch:
    try:
        return Watch(*paths)
    except OSError as error:
        hint = "see fs.inotify.max_user_instances and fs.inotify.max_user_watches"
        raise ProducerError(f"inotify: {error}; {hint}") from error


def _seconds(option: str, value: str) -> float:
    try:
        return durations.parse(value)
    except ValueError as error:
        raise OptionError(option, str(error)) from error
