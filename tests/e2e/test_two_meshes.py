"""The example docs/examples/two-meshes, as its page says: two meshes, each up with its server, that
know each other as agents alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_ports

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "two-meshes"


class Two:
    """Somebody at the example's script."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "example"
        shutil.copytree(EXAMPLE, self._folder)
        desk, workshop = free_ports(2)
        for file in self._folder.glob("*/config.yaml"):
            text = file.read_text().replace("9471", str(desk)).replace("9472", str(workshop))
            file.write_text(text)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._env = {**os.environ, "HOME": str(home), "PATH": path}

    def types(self, *argv: str, code: int | None = 0) -> str:
        """`./two.sh ARGV`."""
        done = subprocess.run(
            ["./two.sh", *argv],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert code is None or done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout

    def reads(self, mesh: str, *argv: str) -> Any:
        """What a command in one of the meshes says with --json."""
        return json.loads(self.types(mesh, "opsmesh", *argv, "--json"))

    def events(self, mesh: str, topic: str) -> list[dict[str, Any]]:
        """Stored events of a topic."""
        lines = self.types(
            mesh, "opsmesh", "tail", "--no-follow", "--since", "1h", "-t", topic, "--json"
        )
        return [json.loads(line) for line in lines.splitlines()]

    def ended(self, mesh: str, profiles: set[str]) -> list[dict[str, Any]]:
        """All runs of a mesh, once these profiles have succeeded; none before."""
        runs: list[dict[str, Any]] = self.reads(mesh, "run", "ls")
        good = {run["profile"] for run in runs if run["state"] == "succeeded"}
        return runs if good == profiles else []


def _waits(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline, "never true"
        time.sleep(0.1)
    return value


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    """Both meshes, up."""
    found = Two(tmp_path)
    try:
        found.types("up")
        yield found
    finally:
        found.types("down", code=None)


@pytest.mark.slow
def test_story(two: Two, tmp_path: Path) -> None:
    """A change that is wanted at the desk is asked about, made in the workshop, checked at the desk
    and told there; the desk is restarted meanwhile. One story, in both meshes."""
    [agent] = two.reads("desk", "a2a", "ls")
    assert (agent["card"], agent["skills"]) == ("workshop", "implementer")
    two.types("desk", "opsmesh", "emit", "change.wanted", "text=Buy milk; rm -rf $HOME")
    [asked] = _waits(lambda: two.reads("desk", "approvals", "ls"))
    assert "Write Buy milk; rm -rf $HOME into the notes?" in asked["prompt"]
    two.types("desk", "opsmesh", "down")
    two.types("desk", "opsmesh", "up", "--detach")
    [asked] = _waits(lambda: two.reads("desk", "approvals", "ls"))
    two.types("desk", "opsmesh", "approve", asked["id"], "--answer", '"yes"')
    [made] = _waits(lambda: two.events("desk", "change.made"))
    assert made["payload"] == {"text": "Buy milk; rm -rf $HOME", "verdict": "fine"}
    assert (tmp_path / "two-meshes" / "work" / "notes.txt").read_text() == (
        "Buy milk; rm -rf $HOME\n"
    )
    story = made["correlation_id"]
    for mesh, profiles in (("desk", {"planner", "checker"}), ("workshop", {"implementer"})):
        runs = _waits(partial(two.ended, mesh, profiles))
        assert {run["correlation_id"] for run in runs} == {story}
    [accepted] = two.events("desk", "a2a.task.accepted")
    # wanted: 0, its message: 1, the workshop's: 2
    assert (accepted["payload"]["caller"], accepted["hops"]) == ("workshop", 2)
