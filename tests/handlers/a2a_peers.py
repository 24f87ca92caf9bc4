"""Peers for the tests about A2A: the SDK's own agent as a process, and a context to ask it from."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from opsmesh.router import paths


@dataclass
class Peer:
    """A running agent."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """Where it listens."""
        return (self.folder / "address").read_text()

    def heard(self, kind: str = "message") -> list[dict[str, Any]]:
        """What it has heard, in order."""
        try:
            lines = (self.folder / "heard").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [one for line in lines if (one := json.loads(line))["kind"] == kind]

    def texts(self) -> list[str]:
        """The first part of each message."""
        return [one["message"]["parts"][0].get("text", "") for one in self.heard()]


@contextlib.contextmanager
def peer(folder: Path, *, token: str = "", port: int = 0) -> Iterator[Peer]:
    """An agent of the SDK, until the body ends."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "AGENT_TOKEN": token, "AGENT_PORT": str(port)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.handlers.a2a_agent", str(folder)],
            env=env,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while not (folder / "address").exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the agent does not start"
            time.sleep(0.02)
        yield Peer(folder, process)
    finally:
        process.kill()
        process.wait()


def configure(**agents: dict[str, Any]) -> None:
    """The agents of this test's settings."""
    file = Path(paths.config_dir(), "config.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump({"a2a_agents": agents}))
