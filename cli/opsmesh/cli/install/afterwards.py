"""Commands that a wiring wants run beside its files: shown before, run after the same yes."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import Final

from opsmesh.cli import output

#: Seconds that one may take: a service manager waits for what it starts.
PATIENCE: Final = 120.0

Commands = Sequence[Sequence[str]]


def texts(commands: Commands) -> list[str]:
    """As a person would type them."""
    return [shlex.join(command) for command in commands]


def show(commands: Commands) -> None:
    """Say what will be run."""
    for text in texts(commands):
        print(f"then: {text}")


def run(commands: Commands, *, needed: bool) -> None:
    """Run them; where one fails and it is `needed`, the rest is left to the user."""
    for number, command in enumerate(commands):
        if (why := _failure(command)) is None:
            continue
        what = f"{shlex.join(command)} failed: {why}"
        if needed:
            rest = " && ".join(texts(commands[number:]))
            output.fail(f"the files are written, but {what}", hint=f"once that is mended: {rest}")
        output.note(what)


def _failure(command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
