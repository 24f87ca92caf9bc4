"""The dotfiles producer's loop: wait for a notice, let it settle, compare, tell; ask for drift.

What is told is always the difference between two looks at the files, so that nothing which happened
while nobody watched is missed: before the start, in a full queue, in a folder that was away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from opsmesh.producers.ask import NoAnswer
from opsmesh.producers.contract import Emit
from opsmesh.producers.dotfiles import drift, sources
from opsmesh.producers.dotfiles.memory import Remembered
from opsmesh.producers.dotfiles.snapshot import (
    Snapshot,
    TooMany,
    differences,
    noise,
    of_files,
    of_tree,
)
from opsmesh.producers.dotfiles.sources import Source
from opsmesh.producers.errors import OptionError, ProducerError
from opsmesh.producers.host import say
from opsmesh.producers.notices import Notices
from opsmesh.producers.remembered import News
from opsmesh.router import paths
from opsmesh.schemas import durations

CHANGED: Final = "config.change.detected"
DRIFTED: Final = "config.drift.detected"
STARTED: Final = "config.apply.started"
COMPLETED: Final = "config.apply.completed"
FAILED: Final = "config.apply.failed"

#: A burst of changes is over after so long without one; and is told after so long in any case.
SETTLE, MAX_WAIT = "2s", "30s"
#: How often drift is asked for, beside after each change and after each `dotfiles apply`.
DRIFT_EVERY: Final = "1h"
#: Paths of one event, and bytes of them; the number of changes is told beside them.
MOST_PATHS, MOST_BYTES = 500, 100_000
#: Keys of notices that are no change of a file: a repository's index, and what apply leaves.
INDEX, APPLY = "index:", "apply:"


def apply_path() -> Path:
    """Where `opsmesh dotfiles apply` says how it went; written when it is over."""
    return Path(paths.state_dir(), "producers", "dotfiles", "apply.json")


@dataclass
class Watched:
    """One source, and what is due for it, as times of the monotonic clock."""

    source: Source
    first: float | None = None
    last: float = 0.0
    changes: int = 0
    ask_at: float | None = None
    index: tuple[int, int] | None = None
    tracked: list[str] = field(default_factory=list)
    unanswered: str = ""

    def note(self, now: float, changes: int) -> None:
        """Something may have changed."""
        self.first = now if self.first is None else self.first
        self.last, self.changes = now, self.changes + changes


class Dotfiles:
    """Changes of dotfiles and their drift."""

    name = "dotfiles"
    description = "dotfiles (chezmoi, yadm, stow, git): changes of the source, drift, applies"
    topics: Sequence[str] = (CHANGED, DRIFTED, STARTED, COMPLETED, FAILED)

    def __init__(
        self,
        *,
        source: str = sources.AUTO,
        settle: str = SETTLE,
        max_wait: str = MAX_WAIT,
        drift_every: str = DRIFT_EVERY,
    ) -> None:
        """Options as text.

        `source`: PATH[:TOOL[:MORE]], several with commas, or `auto`; MORE: stow's packages with +,
        or the work tree of a bare repository. `settle` and `max_wait`: when a burst is told.
        `drift_every`: how often the tools are asked; `off`: never.
        """
        self._option = source
        self._settle = _seconds("settle", settle)
        self._max_wait = _seconds("max_wait", max_wait)
        self._every = None if drift_every == "off" else _seconds("drift_every", drift_every)
        if self._every == 0:
            raise OptionError("drift_every", "0 would ask without end; off: never")

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if known(self._option, Remembered(self.name)):
            return None
        return (
            "no dotfiles of chezmoi, yadm, stow or git found: name them, "
            "producers.options.dotfiles.source: ~/dots:stow"
        )

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        remembered = Remembered(self.name)
        remembered.resume(emit)
        notices = Notices(lambda name, is_folder: not noise(name))
        try:
            _Loop(
                [Watched(source) for source in known(self._option, remembered)],
                notices,
                remembered,
                emit,
                settle=self._settle,
                max_wait=self._max_wait,
                every=self._every,
            ).run()
        finally:
            notices.close()


class _Loop:
    def __init__(
        self,
        watched: Iterable[Watched],
        notices: Notices,
        remembered: Remembered,
        emit: Emit,
        *,
        settle: float,
        max_wait: float,
        every: float | None,
    ) -> None:
        self._watched = {one.source.key: one for one in watched}
        self._notices = notices
        self._remembered = remembered
        self._emit = emit
        self._settle = settle
        self._max_wait = max_wait
        self._every = every

    def run(self) -> None:
        now = time.monotonic()
        apply_path().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._notices.arm(APPLY, str(apply_path().parent), {apply_path().name})
        for one in list(self._watched.values()):
            self._compare(one)
            one.ask_at = now if self._every is not None else None
        for one in self._watched.values():
            say(f"dotfiles: {one.source.tool} in {text(one.source.path)}")
        say(f"dotfiles: sources in place: {len(self._watched)}")
        while self._watched:
            self._note(self._notices.wait(self._timeout()))
            for one in list(self._watched.values()):
                self._turn(one)
        raise ProducerError("no source is left to watch")

    def _timeout(self) -> float | None:
        due = [at for one in self._watched.values() for at in (self._tell_at(one), one.ask_at)]
        known = [at for at in due if at is not None]
        return max(0.0, min(known) - time.monotonic()) if known else None

    def _tell_at(self, one: Watched) -> float | None:
        if one.first is None:
            return None
        return min(one.last + self._settle, one.first + self._max_wait)

    def _note(self, changed: dict[str, int]) -> None:
        now = time.monotonic()
        for key, changes in changed.items():
            if key == APPLY and self._every is not None:
                for one in self._watched.values():
                    one.ask_at = now
            elif (one_key := key.removeprefix(INDEX)) in self._watched:
                self._watched[one_key].note(now, 0 if key.startswith(INDEX) else changes)

    def _turn(self, one: Watched) -> None:
        now, tell_at = time.monotonic(), self._tell_at(one)
        if tell_at is not None and now >= tell_at:
            overdue = one.first is not None and now >= one.first + self._max_wait
            if _locked(one.source) and not overdue:
                one.last = now  # git is at work: what it has written so far is half of a burst
            else:
                self._compare(one)
                one.ask_at = now if self._every is not None else None
        if one.ask_at is not None and now >= one.ask_at and self._every is not None:
            one.ask_at = now + self._every
            self._ask(one)

    def _compare(self, one: Watched) -> None:
        """Look at the files, and tell what is another than before."""
        source, changes = one.source, one.changes
        one.first, one.changes = None, 0
        before = self._remembered.files(source.key)
        try:
            now = self._look(one, before or {})
        except TooMany as error:
            say(f"dotfiles: {error}")
            del self._watched[source.key]
            self._notices.forget(source.key)
            return
        changed = differences(before, now) if before is not None else []
        if now != before:
            self._remembered.keep(source.key, files=now)
        if changed:
            payload = {
                "paths": bounded(os.path.join(source.root, path) for path in changed),  # noqa: PTH118
                "tool": source.tool,
                "source_dir": text(source.path),
                "changes": max(changes, len(changed)),
            }
            self._tell(source, CHANGED, payload)
        elif now != before:
            self._remembered.store()

    def _look(self, one: Watched, before: Snapshot) -> Snapshot:
        source = one.source
        self._notices.forget(source.key)
        self._notices.arm_way(source.key, source.root)
        if not source.work_tree:
            return of_tree(source.path, before, lambda path: self._notices.arm(source.key, path))
        for name in ("index", "HEAD"):
            self._notices.arm_way(INDEX + source.key, os.path.join(source.path, name))  # noqa: PTH118
        index = _index(source)
        if index is None:
            one.tracked, one.index = [], None
        elif index != one.index:
            try:
                one.tracked, one.index = drift.tracked(source), index
            except NoAnswer as error:  # as before, then; asked again at the next look
                say(f"dotfiles: {error}")
                one.tracked = one.tracked or list(before)
        for name in one.tracked:
            self._notices.arm_way(source.key, os.path.join(source.root, name))  # noqa: PTH118
        return of_files(source.root, one.tracked, before)

    def _ask(self, one: Watched) -> None:
        """Ask the tool for drift, and tell it when it is not what was told last."""
        source, key = one.source, one.source.key
        packages: set[str] = set()
        if source.tool == sources.STOW:
            there = set(sources.packages(source))
            packages = (set(sources.stowed(source)) | self._remembered.packages(key)) & there
            self._remembered.keep(key, packages=sorted(packages))
        if not os.path.isdir(source.path):  # noqa: PTH112
            return  # its files are told as gone; there is nothing to compare with
        try:
            found = drift.find(source, packages)
        except NoAnswer as error:
            if str(error) != one.unanswered:
                say(f"dotfiles: no drift of {source.path} to be had: {error}")
            one.unanswered = str(error)
            return
        one.unanswered = ""
        before = self._remembered.drift(key)
        if found == (before or {}):
            if before is None:
                self._remembered.keep(key, drift=found)
                self._remembered.store()
            return
        self._remembered.keep(key, drift=found)
        told = bounded(found)
        payload: dict[str, Any] = {
            "tool": source.tool,
            "paths": told,
            "source_dir": text(source.path),
            "states": {path: state for path, state in found.items() if path in set(told)},
        }
        self._tell(source, DRIFTED, payload, severity=None if found else "info")

    def _tell(
        self, source: Source, topic: str, payload: dict[str, Any], severity: str | None = None
    ) -> None:
        news = News(
            topic=topic,
            payload=payload,
            component=source.tool,
            workspace=text(source.root),
            severity=severity,
        )
        self._remembered.tell(news, self._emit)


def known(option: str, remembered: Remembered) -> list[Source]:
    """The sources that the option names. stow is recognised by its links: a folder that had some
    when it was seen first is stow's, even if all of them are gone by now."""
    found = {source.path: source for source in sources.find(option)}
    if sources.AUTO in option.split(","):
        for path in sources.usual():
            one = Source(tool=sources.STOW, path=path)
            apart = found[path].tool == sources.GIT if path in found else True
            if apart and os.path.isdir(path) and remembered.packages(one.key):  # noqa: PTH112
                found[path] = one
    return list(found.values())


def text(path: str) -> str:
    """A path that every JSON parser takes: bytes that are no UTF-8 as \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def bounded(found: Iterable[str]) -> list[str]:
    """As many of the paths as one event can hold, in order."""
    kept: list[str] = []
    room = MOST_BYTES
    for path in map(text, sorted(found)):
        room -= len(path.encode())
        if len(kept) == MOST_PATHS or room < 0:
            break
        kept.append(path)
    return kept


def _index(source: Source) -> tuple[int, int] | None:
    try:
        status = os.stat(os.path.join(source.path, "index"))  # noqa: PTH116, PTH118
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _locked(source: Source) -> bool:
    """Whether git is at work in the source's repository."""
    repository = source.path if source.work_tree else os.path.join(source.path, ".git")  # noqa: PTH118
    return os.path.lexists(os.path.join(repository, "index.lock"))  # noqa: PTH118


def _seconds(option: str, value: str) -> float:
    try:
        return durations.parse(value)
    except ValueError as error:
        raise OptionError(option, str(error)) from error
