"""The agents' own half: their settings, which get hooks that call `opsmesh agent-hook`.

A handler is ours when it calls that for this agent, whoever wrote it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from opsmesh.producers.agents import hook_settings, hooks, words
from opsmesh.producers.errors import OptionError
from opsmesh.producers.wiring import EditedFile, Piece
from opsmesh.schemas import durations

#: Seconds after which an agent gives a hook up that tells only: it needs one at most.
TIMEOUT: Final = 10
#: Seconds that an agent waits longer than a hook that waits for a person.
SPARE: Final = 10
#: Longest time that a person may take: the agents' own longest for a hook is not known.
DECIDE_MOST: Final = 3600

#: What hooks tell, where all of them are called.
TOLD: Final = (hooks.STARTED, hooks.ENDED, hooks.EXECUTED, hooks.TURN, hooks.ASKS, hooks.ERROR)


class _Agent:
    """What the three have in common. See `wiring.Wiring`."""

    name: str
    program: ClassVar[str]
    title: ClassVar[str]
    #: Whether its hook can answer a request for permission.
    answered: ClassVar[bool] = False
    #: Hooks that are called for one tool alone.
    matchers: ClassVar[Mapping[str, str]] = {}
    #: What a second is in its configuration.
    second: ClassVar[int] = 1
    producer: str | None = None
    topics: Sequence[str] = TOLD

    def __init__(self, *, decide: str = "", commands: str = words.ARGV) -> None:
        """Options as text. `decide`: how long a person may take to answer a request for permission
        through opsmesh (`5m`), else it is told only; `commands`: what is told of a command, `argv`,
        `program` or `none`."""
        if commands not in words.POLICIES:
            raise OptionError("commands", f"{commands!r} is not one of {', '.join(words.POLICIES)}")
        try:
            self._decide = round(durations.parse(decide)) if decide else 0
        except ValueError as error:
            raise OptionError("decide", str(error)) from error
        if not 0 <= self._decide <= DECIDE_MOST:
            raise OptionError("decide", f"{decide} is not up to {DECIDE_MOST // 60}m")
        if self._decide and not self.answered:
            raise OptionError("decide", f"{self.title} takes no answer from a hook")
        self._commands = commands

    @property
    def description(self) -> str:
        """See `wiring.Wiring`."""
        return f"{self.title}: hooks that tell what it does, never what is said"

    def missing(self) -> str | None:
        """See `wiring.Wiring`."""
        if shutil.which(self.program) or self.path.parent.is_dir():
            return None
        return f"{self.program} is not on PATH, and {self.path.parent} is not there"

    @property
    def path(self) -> Path:
        """The file that holds its hooks."""
        raise NotImplementedError

    def pieces(self) -> Sequence[Piece]:
        """See `wiring.Wiring`."""
        return (EditedFile(path=self.path, put=self._put, take=self._take),)

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return "sessions that run now do not know the hooks: begin a new one"

    def _command(self, event: str) -> str:
        """What a shell runs: ours, or nothing once opsmesh is gone."""
        program = shlex.quote(str(Path(sys.executable).with_name("opsmesh")))
        words_ = [program, "agent-hook", "--agent", self.name]
        if self._commands != words.ARGV:
            words_ += ["--commands", self._commands]
        if self._decide and event == "PermissionRequest":
            words_.append(f"--decide={self._decide}s")
        return f"if [ -x {program} ]; then exec {' '.join(words_)}; fi"

    def _group(self, event: str) -> dict[str, Any]:
        waits = self._decide and event == "PermissionRequest"
        seconds = self._decide + SPARE if waits else TIMEOUT
        handler = {
            "type": "command",
            "command": self._command(event),
            "timeout": seconds * self.second,
        }
        matcher = self.matchers.get(event)
        return {**({"matcher": matcher} if matcher else {}), "hooks": [handler]}

    def _put(self, text: str) -> str:
        """See `wiring.EditedFile`."""
        path, groups = str(self.path), {one: self._group(one) for one in hooks.FORMS[self.name]}
        return hook_settings.put(path, hook_settings.take(path, text, self._ours), groups)

    def _take(self, text: str, before: str) -> str:
        """See `wiring.EditedFile`."""
        return hook_settings.take(str(self.path), text, self._ours)

    def _ours(self, command: str) -> bool:
        return f"agent-hook --agent {self.name}" in command


class Codex(_Agent):
    """See `wiring.Wiring`. Its hooks stand in a file of their own, beside its configuration."""

    name = program = "codex"
    title = "Codex"
    answered = True
    producer = "codex"
    topics = (hooks.ASKS,)

    @property
    def path(self) -> Path:
        """See `_Agent`."""
        return _folder("CODEX_HOME", ".codex") / "hooks.json"

    def after(self) -> str:
        """See `wiring.Wiring`."""
        return "start codex: it asks once whether the new hook may run (or say /hooks)"


class Claude(_Agent):
    """See `wiring.Wiring`."""

    name = program = "claude"
    title = "Claude Code"
    answered = True
    matchers: ClassVar[Mapping[str, str]] = {"PostToolUse": "Bash", "PostToolUseFailure": "Bash"}

    @property
    def path(self) -> Path:
        """See `_Agent`."""
        return _folder("CLAUDE_CONFIG_DIR", ".claude") / "settings.json"


class Gemini(_Agent):
    """See `wiring.Wiring`."""

    name = program = "gemini"
    title = "Gemini CLI"
    matchers: ClassVar[Mapping[str, str]] = {"AfterTool": "^run_shell_command$"}
    second = 1000

    @property
    def path(self) -> Path:
        """See `_Agent`."""
        return Path.home() / ".gemini/settings.json"


def _folder(variable: str, fallback: str) -> Path:
    said = os.environ.get(variable, "")
    return Path(said).absolute() if said else Path.home() / fallback
