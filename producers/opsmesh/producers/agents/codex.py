"""The codex producer: follows the files of Codex' sessions, and tells what was done in them.

The one rule: a line is noted as read only after what it tells was taken; its events have derived
ids, so that a line that is read twice is stored once.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from opsmesh.producers.agents import files, lineage, words
from opsmesh.producers.agents.files import Files
from opsmesh.producers.agents.hooks import ERROR, EXECUTED, STARTED, TURN
from opsmesh.producers.agents.rollout import Fact, Rollout, at
from opsmesh.producers.contract import Emit
from opsmesh.producers.errors import OptionError, ProducerError, Refused
from opsmesh.producers.host import say
from opsmesh.producers.memory import Memory
from opsmesh.producers.troubles import Troubles
from opsmesh.producers.watch import Watch
from opsmesh.router import session
from opsmesh.schemas import durations

#: Seconds that a notice is waited with: Codex writes a line for each thing that happens.
GATHER: Final = 0.1
#: Sessions whose facts are kept while the producer runs.
MAX_OPEN: Final = 64
#: Lines after which it is noted how far a file is read, and seconds after which that is written
#: down: what was told since is told again after a crash, with the same ids.
NOTE_EVERY: Final = 500
STORE_EVERY: Final = 2.0
#: How the names of Codex' processes begin.
PROCESSES: Final = ("codex",)
#: Kinds of lines that are named when they are not understood.
MAX_KINDS: Final = 20


@dataclass
class _Open:
    """A session as far as it was read, and whose terminal it is in."""

    rollout: Rollout
    session_id: str
    #: What was written up to then is old, in nanoseconds since the epoch.
    floor_ns: int
    warned: set[str] = field(default_factory=set)


class Codex:
    """See `contract.Producer`."""

    name = "codex"
    description = "Codex: sessions, commands, turns and errors; never what was said"
    topics: Sequence[str] = (STARTED, EXECUTED, TURN, ERROR)

    def __init__(self, *, home: str = "", commands: str = words.ARGV, since: str = "") -> None:
        """Options as text.

        `home`: Codex' folder, else `$CODEX_HOME`, else `~/.codex`; `commands`: what is told of a
        command, `argv`, `program` or `none`; `since`: where the first start begins, `all`, an age
        (`7d`) or a date; else with what is written from then on.
        """
        if commands not in words.POLICIES:
            raise OptionError("commands", f"{commands!r} is not one of {', '.join(words.POLICIES)}")
        self._home = Path(home or os.environ.get("CODEX_HOME") or "~/.codex").expanduser()
        self._commands = commands
        self._files = Files(self._home / "sessions", _floor(since))
        self._memory = Memory(self.name)
        self._troubles: Troubles
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        #: Lines that were not understood, by their kind.
        self._unknown: dict[str, int] = {}

    def available(self) -> str | None:
        """See `contract.Producer`."""
        if self._home.is_dir() or shutil.which("codex"):
            return None
        return f"neither {self._home} nor a codex on PATH is here"

    def run(self, emit: Emit) -> None:
        """See `contract.Producer`."""
        self._troubles = Troubles(self.name)
        stored = self._memory.load()
        self._files.restore(stored)
        unknown = stored.get("unknown")
        if isinstance(unknown, dict):
            self._unknown = {str(kind): n for kind, n in unknown.items() if isinstance(n, int)}
        self._store()  # the floor, so that what comes while we are away is told
        try:
            while True:
                paths = self._files.watched()
                with self._watch(paths) as watch:
                    if paths == self._files.watched():
                        self._follow(watch, paths, emit)
        finally:
            self._store()

    def _watch(self, paths: Sequence[Path]) -> Watch:
        try:
            return Watch(*paths)
        except OSError as error:
            hint = "see fs.inotify.max_user_instances and fs.inotify.max_user_watches"
            raise ProducerError(f"inotify: {error}; {hint}") from error

    def _follow(self, watch: Watch, paths: list[Path], emit: Emit) -> None:
        """Tell what is written, until there is another folder to watch."""
        folders = self._files.folders()
        while True:
            now_ns = time.time_ns()
            for path in self._files.changed(folders):
                self._read(path, emit)
            self._files.forget(now_ns)
            if not watch.wait(STORE_EVERY):
                self._store()
                watch.wait()
            time.sleep(GATHER)  # more will come; one look for all of it
            watch.wait(0)
            if self._files.watched() != paths:
                return

    def _read(self, path: Path, emit: Emit) -> None:
        """Tell what is new in one file. What cannot be read is looked at again when it changes."""
        try:
            place, status = self._files.place(path), path.stat()
        except OSError:
            self._open.pop(path, None)  # archived or deleted just now
            return
        opened = self._opened(path, place.offset)
        offset = place.offset
        try:
            for count, line in enumerate(files.read(path, offset), 1):
                for fact in self._facts(opened, line):
                    self._emit(opened, fact, emit)
                offset = line.end
                if count % NOTE_EVERY == 0:
                    self._files.stopped(path, status, offset)
                    self._store()
            self._troubles.over(str(path))
        except OSError as error:
            self._troubles.note(str(path), f"{path}: {error.strerror or error}")
        except BaseException:
            self._files.stopped(path, status, offset)
            raise
        self._files.note(path, status, offset)

    def _opened(self, path: Path, offset: int) -> _Open:
        """What is known of a session; of one that was read in an earlier life, what its first line
        says."""
        found = self._open.pop(path, None) if offset else None
        if found is None:
            floor_ns = 0 if offset else self._files.floor_ns
            found = _Open(Rollout(commands=self._commands), _terminal(path), floor_ns)
            head = files.first(path) if offset else None
            if head is not None:
                found.rollout.feed(head)
                found.rollout.unknown.clear()
        self._open[path] = found
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return found

    def _facts(self, opened: _Open, line: files.Line) -> list[Fact]:
        rollout = opened.rollout
        if line.value is None:
            rollout.unknown["no JSON"] = rollout.unknown.get("no JSON", 0) + 1
            facts = []
        else:
            facts = rollout.feed(line.value)
            written_us = at(line.value)
            if written_us is not None and written_us * 1000 <= opened.floor_ns:
                facts = []  # from before the first start, or told before the file was forgotten
                rollout.unknown.clear()
        self._count(opened)
        return facts

    def _count(self, opened: _Open) -> None:
        """Add up what was not understood, and say each kind of it once a session."""
        rollout = opened.rollout
        for kind, count in rollout.unknown.items():
            if kind in self._unknown or len(self._unknown) < MAX_KINDS:
                self._unknown[kind] = self._unknown.get(kind, 0) + count
            self._say(opened, kind, f"a line is not understood: {kind}")
        rollout.unknown.clear()
        if rollout.blind:
            version = rollout.version or "unknown"
            told = "commands were asked for, and none is told in a form that is known"
            self._troubles.note(f"Codex {version}", f"Codex {version}: {told}")

    def _say(self, opened: _Open, kind: str, text: str) -> None:
        if kind not in opened.warned:
            opened.warned.add(kind)
            version = opened.rollout.version or "unknown"
            say(f"{self.name}: session {opened.rollout.session or '?'} (Codex {version}): {text}")

    def _emit(self, opened: _Open, fact: Fact, emit: Emit) -> None:
        try:
            emit(
                fact.topic,
                fact.payload,
                id=fact.id,
                ts_us=fact.ts_us,
                severity=fact.severity,
                correlation_id=fact.session,
                causation_id=fact.causation_id,
                component="session",
                workspace=session.workspace(fact.payload.get("cwd", ""), os.environ),
                session=opened.session_id,
                exit_code=fact.exit_code,
                duration_ms=fact.duration_ms,
            )
        except Refused as error:  # sending it again would change nothing
            say(f"{self.name}: {error}")

    def _store(self) -> None:
        """Write it down. A disk that is full keeps nobody from being told."""
        remembered = {**self._files.dump(), "unknown": self._unknown}
        try:
            self._memory.store(remembered)
            self._troubles.over("memory")
        except OSError as error:
            self._troubles.note("memory", f"nothing can be remembered: {error}")


def _terminal(path: Path) -> str:
    """The session of the Codex that has the file open; the login session where none can be told."""
    pid = lineage.holder(str(path.resolve()), PROCESSES)
    if pid is None:
        return session.login(os.environ)
    return lineage.session_of(pid, lineage.environment(pid))


def _floor(since: str) -> int:
    """Nanoseconds since the epoch, before which nothing is told."""
    if not since:
        return time.time_ns()
    if since == "all":
        return 0
    try:
        return time.time_ns() - int(durations.parse(since) * 1e9)
    except ValueError:
        pass
    try:
        return int(datetime.fromisoformat(since).timestamp() * 1e9)
    except (ValueError, OverflowError) as error:
        raise OptionError("since", f"{since!r} is not all, an age like 7d, or a date") from error
