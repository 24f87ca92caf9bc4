"""A tool that is wired by its command, in a mesh of real processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OPSMESH = Path(sys.executable).with_name("opsmesh")


def opsmesh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return subprocess.run([OPSMESH, *arguments], capture_output=True, text=True, timeout=120)


def test_a_wired_shell_is_heard(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `install shell` a command that fails in a real shell is an event within the probe's
    time, doctor knows the last event of each wired tool, and after `uninstall shell` the home is as
    it was."""
    if shutil.which("bash") is None:
        assert not os.environ.get("CI"), "bash must be there in CI"
        pytest.skip("bash is not installed")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("ZDOTDIR", str(home))
    (home / ".bashrc").write_bytes(b"# mine")
    before = {path: path.read_bytes() for path in home.rglob(".*rc")}
    assert opsmesh("up", "--detach").returncode == 0
    try:
        done = opsmesh("install", "shell", "--yes")
        assert done.returncode == 0, done.stderr
        checked = opsmesh("doctor", "--probe", "--json")
        found = [one for one in json.loads(checked.stdout) if one["check"] == "probe shell"]
        assert found[0]["detail"].startswith("bash: heard"), found
        assert all(one["ok"] for one in found), found
        [tool] = [
            one
            for one in json.loads(opsmesh("doctor", "--json").stdout)
            if one["check"] == "tool shell"
        ]
        assert "last event" in tool["detail"]
        (home / "config/quickshell").mkdir()
        (home / "config/quickshell/shell.qml").touch()
        assert opsmesh("install", "quickshell", "--yes").returncode == 0
        opsmesh("emit", "shell.action.invoked", "action=mute")
        checks = json.loads(opsmesh("doctor", "--json").stdout)
        heard = [one["detail"] for one in checks if one["check"] == "tool quickshell"]
        assert any("shell.action.invoked" in detail for detail in heard), heard
        assert opsmesh("uninstall", "shell", "--yes").returncode == 0
        assert {path: path.read_bytes() for path in home.rglob(".*rc")} == before
        assert not (home / "data/opsmesh").exists()
    finally:
        opsmesh("down")
