"""Real coding agents from npm, each installed once into a cache of the user's.

They are given a scripted model, folders of the test's own, an environment of nothing but what they
need, and a key that opens nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from opsmesh.producers.agents import lineage
from opsmesh.producers.wiring import EditedFile, Wiring

#: The packages, at the versions of which the captures are.
PACKAGES = {
    "codex": ("@openai/codex", "0.169.0"),
    "claude": ("@anthropic-ai/claude-code", "2.1.332"),
    "gemini": ("@google/gemini-cli", "0.61.0"),
}
#: Where they are kept; looked up before a test has a home of its own.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opsmesh-tests"
#: Variables of the mesh that hooks need.
MESH = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
CODEX = """
model = "mock-model"
model_provider = "mock"
approval_policy = "on-request"
sandbox_mode = "{sandbox}"
[model_providers.mock]
name = "mock"
base_url = "{url}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
[projects."{project}"]
trust_level = "trusted"
"""


def installed(name: str) -> Path:
    """The agent's program; skips where it cannot be had."""
    package, version = PACKAGES[name]
    folder = CACHE / f"{package.rpartition('/')[2]}-{version}"
    program = folder / "node_modules/.bin" / name
    if not program.exists():
        if not shutil.which("npm") or not shutil.which("node"):
            _missing("node and npm are not here")
        folder.mkdir(parents=True, exist_ok=True)
        argv = ["npm", "install", "--no-audit", "--no-fund", f"{package}@{version}"]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=600)
        if not program.exists():
            _missing(f"npm could not install {package}: {done.stderr[-300:]}")
    return program


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Workplace:
    """A home with a project, in which agents work."""

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.url = home / "dev", url
        self.project = self.home / "project"
        (self.project / ".git").mkdir(parents=True)
        (self.home / ".codex").mkdir()

    def environment(self, **more: str) -> dict[str, str]:
        """What an agent finds."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TERM": "xterm-256color",
            **{name: os.environ[name] for name in MESH},
            "CODEX_HOME": str(self.home / ".codex"),
            "ANTHROPIC_BASE_URL": self.url,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "GOOGLE_GEMINI_BASE_URL": self.url,
            "GEMINI_API_KEY": "none",
            **more,
        }

    def codex(self, *, sandbox: str = "workspace-write") -> None:
        """Configure Codex for the scripted model."""
        text = CODEX.format(url=self.url, project=self.project, sandbox=sandbox)
        (self.home / ".codex/config.toml").write_text(text)

    def wire(self, wiring: Wiring, *, base: Mapping[str, object] | None = None) -> None:
        """Put our hooks into its settings."""
        for piece in wiring.pieces():
            assert isinstance(piece, EditedFile)
            piece.path.parent.mkdir(parents=True, exist_ok=True)
            piece.path.write_text(piece.put(json.dumps(base) if base else ""))

    def run(self, name: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run an agent to its end."""
        return subprocess.run(
            [installed(name), *arguments],
            cwd=self.project,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )


@contextmanager
def workplace(home: Path, url: str) -> Iterator[Workplace]:
    """A workplace; processes that agents leave behind in it are ended: Codex has a daemon."""
    made = Workplace(home, url)
    try:
        yield made
    finally:
        for process in Path("/proc").glob("[0-9]*"):
            pid = int(process.name)
            if lineage.environment(pid).get("HOME") == str(made.home):
                os.kill(pid, signal.SIGKILL)
