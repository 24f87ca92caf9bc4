"""A tool that is wired by its command, in a mesh of real processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from opsmesh.cli.main import app
from tests.conftest import private_folders, until
from tests.producers import nvims

#: One mesh for all of them.
pytestmark = pytest.mark.xdist_group("wired")
OPSMESH = Path(sys.executable).with_name("opsmesh")
#: A stranger's producer, which can run once the file TOOL is there.
LATER = """
import time
from pathlib import Path
TOOL = Path({tool!r})

class Later:
    name, description, topics = "later", "a tool that comes late", ("test.later",)
    def available(self):
        return None if TOOL.exists() else "no such tool yet"
    def run(self, emit):
        emit("test.later", {{"is": "here"}})
        time.sleep(600)
"""


def opsmesh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return subprocess.run([OPSMESH, *arguments], capture_output=True, text=True, timeout=180)


def doctor(*arguments: str, here: bool = False) -> dict[str, list[dict[str, Any]]]:
    """What `doctor` finds, by the name of the check; `here`: without a process, which does not know
    the stranger's producer."""
    argv = ["doctor", "--json", *arguments]
    said = CliRunner().invoke(app, argv).stdout if here else opsmesh(*argv).stdout
    found: dict[str, list[dict[str, Any]]] = {}
    for check in json.loads(said):
        found.setdefault(check["check"], []).append(check)
    return found


def pids(status: str) -> dict[str, int | None]:
    """The processes that `status --json` tells of, by name."""
    return {one["name"]: one["pid"] for one in json.loads(status)["components"]}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running mesh, with the stranger's producer; what it watches is not there."""
    home = tmp_path_factory.mktemp("wired")
    facts = home / "packages/later-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts.parent / "later.py").write_text(LATER.format(tool=str(home / "tool")))
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: later\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[opsmesh.producers]\nlater = later:Later\n")
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        env.setenv("PYTHONPATH", str(facts.parent))
        env.setenv("HOME", str(home))
        env.setenv("ZDOTDIR", str(home))
        began = opsmesh("up", "--detach")
        try:
            assert began.returncode == 0, began.stdout + began.stderr
            assert "later" in began.stdout.partition("waiting for their tools:")[2]
            yield home
        finally:
            opsmesh("down")


def test_a_wired_shell_is_heard(mesh: Path) -> None:
    """After `install shell` a command that fails in each real shell is an event in the stream
    within the probe's time, with no trace in a shell's history; doctor knows the last event of each
    wired tool, and after `uninstall shell` the home is as it was."""
    shells = [shell for shell in ("bash", "zsh", "fish") if shutil.which(shell)]
    if "bash" not in shells:
        assert not os.environ.get("CI"), "bash must be there in CI"
        pytest.skip("bash is not installed")
    (mesh / ".bashrc").write_bytes(b"HISTFILE=$HOME/bash_past; PROMPT_COMMAND='history -a'  # mine")
    (mesh / ".zshrc").write_bytes(b"HISTFILE=$HOME/zsh_past; SAVEHIST=9\n")
    before = {path: path.read_bytes() for path in mesh.rglob(".*rc")}
    done = opsmesh("install", "shell", "--yes")
    assert done.returncode == 0, done.stderr
    assert "producer shell runs" in done.stdout
    tried = doctor("--probe")["probe shell"]
    assert [one["detail"].split(":")[0] for one in tried] == shells
    assert all(one["ok"] and "heard" in one["detail"] for one in tried), tried
    past = [*mesh.glob("*_past"), *mesh.rglob("fish_history")]
    assert not any("opsmesh-probe" in path.read_text() for path in past)
    [tool] = doctor(here=True)["tool shell"]
    assert tool["ok"]
    assert "last event" in tool["detail"]
    assert "term.pane.command.failed from shell" in tool["detail"]
    assert opsmesh("uninstall", "shell", "--yes").returncode == 0
    assert {path: path.read_bytes() for path in mesh.rglob(".*rc")} == before
    assert not (mesh / "data/opsmesh").exists()


def test_a_tool_without_a_producer_is_heard(mesh: Path) -> None:
    """What a wired tool tells the agent itself is known to doctor by its topic, in one line."""
    (mesh / "config/quickshell").mkdir()
    (mesh / "config/quickshell/shell.qml").touch()
    assert opsmesh("install", "quickshell", "--yes").returncode == 0
    assert "no event yet" in doctor(here=True)["tool quickshell"][0]["detail"]
    opsmesh("emit", "shell.action.invoked", "action=mute")

    def told() -> bool:
        [tool] = doctor(here=True)["tool quickshell"]
        return "shell.action.invoked from" in tool["detail"]

    until(told)


@pytest.mark.slow
def test_a_wired_neovim_is_heard(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin that `install` wrote is heard from a real Neovim, and nothing is left of it."""
    folder = str(Path(nvims.program()).parent)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert opsmesh("install", "neovim", "--yes").returncode == 0
    [tried] = doctor("--probe")["probe neovim"]
    assert tried["ok"], tried
    assert "heard" in tried["detail"]
    assert "editor.save from neovim" in doctor()["tool neovim"][0]["detail"]
    assert opsmesh("uninstall", "neovim", "--yes").returncode == 0
    assert not (mesh / "data/nvim").exists()


@pytest.mark.slow
def test_a_tool_that_comes_later_is_picked_up(mesh: Path) -> None:
    """A producer whose tool was not there is no fault of the mesh; once the tool is there, doctor
    says what starts it, and `install` does, without a restart."""
    first = opsmesh("status", "--json")
    assert first.returncode == 0
    assert doctor()["producer later"][0]["detail"] == "no such tool yet"
    asked = opsmesh("install", "later")
    assert asked.returncode == 0
    assert "does not run: no such tool yet" in asked.stdout
    (mesh / "tool").touch()
    [found] = doctor()["producer later"]
    assert (found["ok"], found["fix"]) == (False, "opsmesh install later")
    before = pids(opsmesh("status", "--json").stdout)
    assert "producer later runs" in opsmesh("install", "later").stdout
    after = pids(opsmesh("status", "--json").stdout)
    assert after["producer:later"]
    # One that waits for its tool is started for a moment, to look whether it has come: what is not
    # that has the process that it had at first.
    stay = {name: pid for name, pid in pids(first.stdout).items() if pid and before[name] == pid}
    assert {"broker", "agent", "handlers"} <= stay.keys()
    assert {name: after[name] for name in stay} == stay
    until(lambda: "last event" in doctor()["producer later"][0]["detail"])
