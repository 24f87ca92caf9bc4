"""Extension hosts for the tests of VS Code's half: node with the real extension in it, and a
stand-in for the module `vscode`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

#: The extension, and the process that holds it.
EXTENSION: Final = Path(__file__).parents[2] / "packages/vscode-opsmesh"
HOST: Final = Path(__file__).with_name("vscode") / "host.js"


def node() -> str:
    """Node; skip where there is none, which in CI is a failure."""
    found = shutil.which("node")
    if found is None:
        assert not os.environ.get("CI"), "node is not on PATH"
        pytest.skip("node is not on PATH (Debian: nodejs)")
    return found


class Host:
    """One extension host, below a shell that is to it what VS Code's server is to a real one."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self._shell = subprocess.Popen(
            ["sh", "-c", '"$@"; exec sleep 3600', "sh", node(), str(HOST), str(EXTENSION), logs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid: int = self.say("pid")

    def say(self, what: str, *args: Any) -> Any:
        """Have it do something; what it says to that."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(json.dumps([what, *args]).encode() + b"\n")
        self._shell.stdin.flush()
        return json.loads(self._shell.stdout.readline())

    def die(self, how: signal.Signals = signal.SIGSEGV, *, also_parent: bool = False) -> None:
        """End it as no host should end; `also_parent`: the editor goes with it."""
        if also_parent:
            os.killpg(self._shell.pid, how)
            self._shell.wait(60)
        else:
            os.kill(self.pid, how)

    def close(self) -> None:
        """Take everything down."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait(60)
        for pipe in (self._shell.stdin, self._shell.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@contextmanager
def hosting(logs: Path) -> Iterator[Host]:
    """A host that logs there."""
    host = Host(logs)
    try:
        yield host
    finally:
        host.close()
