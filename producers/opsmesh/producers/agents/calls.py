"""A command as the model's call of a tool and the answer to it tell it: all that Codex wrote down
of one before it had events for them.

The answer holds the command's output: only what stands before it, or beside it, is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from opsmesh.producers.agents import words

#: Tools of the model that start a command.
TOOLS: Final = frozenset(("exec_command", "shell", "local_shell", "shell_command"))
#: Characters of an answer in which its head ends.
HEAD: Final = 1024
#: How the lines of the head begin that are wanted, and what ends it.
_CODES: Final = ("Process exited with code ", "Exit code: ")
_TIME: Final = "Wall time: "
_OUTPUT: Final = "Output:"


@dataclass(frozen=True)
class Asked:
    """What the model wants to be run, and where."""

    argv: list[str]
    cwd: str | None


@dataclass(frozen=True)
class Ended:
    """How it went."""

    exit_code: int
    duration_ms: float | None


def asked(call: dict[str, Any]) -> Asked | None:
    """The command of a call; None for another tool's, and for one that is not understood."""
    name = words.text(call.get("name", "local_shell"))
    given = call.get("action") if name == "local_shell" else _object(call.get("arguments"))
    if name not in TOOLS or not isinstance(given, dict):
        return None
    command = given.get("cmd", given.get("command"))
    argv = words.argv([command] if isinstance(command, str) else command, words.ARGV)
    cwd = words.text(given.get("workdir", given.get("working_directory")), words.MAX_COMMAND)
    return Asked(argv, cwd) if argv else None


def ended(output: object) -> Ended | None:
    """What an answer says; None when the command runs on, or was never run."""
    if isinstance(output, dict):
        output = output.get("content")
    if not isinstance(output, str):
        return None
    if output.startswith("{"):
        metadata = (_object(output) or {}).get("metadata")
        found = metadata if isinstance(metadata, dict) else {}
        return _ended(found.get("exit_code"), found.get("duration_seconds"))
    code: object = None
    took: object = None
    for line in output[:HEAD].splitlines():
        if line == _OUTPUT:
            break
        if line.startswith(_CODES):
            code = _number(line.rpartition(" ")[2])
        elif line.startswith(_TIME):
            took = _number(line.removeprefix(_TIME).partition(" ")[0])
    return _ended(int(code) if isinstance(code, float) else None, took)


def _ended(code: object, seconds: object) -> Ended | None:
    if isinstance(code, bool) or not isinstance(code, int) or abs(code) > 1 << 31:
        return None
    known = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    took = float(seconds) * 1000 if known else -1.0  # type: ignore[arg-type]
    return Ended(code, round(took, 3) if 0 <= took < 1e12 else None)


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < 1e9 else None


def _object(text: object) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
