"""Real interactive shells in a tmux server of the test's own, with the hook loaded as installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import until

from opsmesh.producers.shell import inbox
from opsmesh.producers.shell.wiring import hook

#: How each shell is started without the machine's own start-up files, but with the test's.
START = {"bash": "bash --noprofile", "zsh": "zsh -d", "fish": "fish"}
#: A command that fails like no other, to wait for.
LAST = 'sh -c "exit 99"'


def need(*tools: str) -> None:
    """Skip without these; fail in CI."""
    for tool in tools:
        if shutil.which(tool) is None:
            assert not os.environ.get("CI"), f"{tool} must be there in CI"
            pytest.skip(f"{tool} is not installed (Debian: {tool})")


def wire(home: Path, shell: str, *, before: str = "", after: str = "") -> None:
    """The hook where `opsmesh install shell` puts it, and the user's own lines around it."""
    if shell == "fish":
        file = home / "config/fish/conf.d/opsmesh.fish"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(hook("fish"))
        return
    file = home / f"data/opsmesh/shell/opsmesh.{shell}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(hook(shell))
    (home / f".{shell}rc").write_text(f"{before}\n. {file}\n{after}\n")


class Terminal:
    """One shell in one pane."""

    def __init__(self, socket: Path, shell: str, env: dict[str, str]) -> None:
        self._socket, self._env = socket, env
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "50", START[shell])

    def type(self, *lines: str) -> None:
        """Each line, and Enter."""
        for line in lines:
            self._tmux("send-keys", "-l", "--", line)
            self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        """One key, as tmux names it."""
        self._tmux("send-keys", key)

    def screen(self) -> str:
        """What is to be seen."""
        return self._tmux("capture-pane", "-p", "-J")

    def shows(self, text: str) -> None:
        """Wait for the text."""
        try:
            until(lambda: text in self.screen())
        except AssertionError:
            raise AssertionError(f"{text!r} is not on the screen:\n{self.screen()}") from None

    def close(self) -> None:
        """End the server, and with it the shell."""
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self._socket), *arguments]
        return subprocess.run(
            command, env=self._env, check=True, capture_output=True, text=True
        ).stdout


@contextmanager
def terminal(home: Path, shell: str, **more: str) -> Iterator[Terminal]:
    """The shell, once its prompt is there."""
    env = {name: text for name, text in os.environ.items() if name not in ("TMUX", "TMUX_PANE")}
    env |= {"HOME": str(home), "ZDOTDIR": str(home), "PS1": "READY> ", "LC_ALL": "C.UTF-8", **more}
    opened = Terminal(home / "tmux.sock", shell, env)
    try:
        opened.type("echo re''ady")
        opened.shows("\nready")
        yield opened
    finally:
        opened.close()


def place() -> Path:
    """The inbox, made as the producer makes it."""
    folder = inbox.folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def written(folder: Path) -> list[dict[str, Any]]:
    """Every whole line in the inbox."""
    return [json.loads(line.text.decode(errors="replace")) for line in inbox.lines(folder, {})]


def told(folder: Path) -> list[dict[str, Any]]:
    """The lines before LAST, once LAST is there."""
    until(lambda: any(line["exit"] == 99 for line in written(folder)))
    lines = written(folder)
    return lines[: [line["exit"] for line in lines].index(99)]
