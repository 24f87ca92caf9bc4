"""`opsmesh action`: what a step can do, and the package for one's own, which is installed here and
tested by its own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

from opsmesh.cli.actions import template
from opsmesh.handlers.actions import registry

#: What `opsmesh` in the package's own environment finds.
SHOWN = "from opsmesh.cli.main import main; raise SystemExit(main())"


def install(package: Path, into: Path) -> None:
    """As pip would, without its time: the module, and the metadata with the entry point."""
    into.mkdir()
    for module in package.glob("opsmesh_action_*.py"):
        (into / module.name).write_text(module.read_text())
    name = template.package("count_lines").replace("-", "_")
    info = into / f"{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[opsmesh.actions]\ncount_lines = opsmesh_action_count_lines:CountLines\n"
    )


def python(*arguments: str, lib: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A Python that has the package."""
    environment = {**os.environ, "PYTHONPATH": str(lib), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=cwd, capture_output=True, text=True
    )


def check(package: Path, lib: Path) -> None:
    """The package's tests pass, and opsmesh knows the action."""
    tested = python("-m", "pytest", "-q", "-p", "no:cacheprovider", lib=lib, cwd=package)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "5 passed" in tested.stdout
    shown = python("-c", SHOWN, "action", "show", "count_lines", lib=lib, cwd=package)
    assert shown.returncode == 0, shown.stderr
    assert "count the lines of a file" in shown.stdout
    assert "A larger file is not read." in shown.stdout


def test_new_passes_its_own_tests(cli: Cli, tmp_path: Path) -> None:
    """What is written is an action whose own tests pass where it is installed."""
    made = cli("action", "new", "count_lines", str(tmp_path / "made"))
    assert made.exit_code == 0, made.output
    install(tmp_path / "made", tmp_path / "lib")
    check(tmp_path / "made", tmp_path / "lib")


@pytest.mark.slow
def test_new_is_installed_by_pip(cli: Cli, tmp_path: Path) -> None:
    """pip builds and installs it as it is written."""
    cli("action", "new", "count_lines", str(tmp_path / "made"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*pip, "--target", str(tmp_path / "lib"), str(tmp_path / "made")], check=True)
    check(tmp_path / "made", tmp_path / "lib")


def test_new_says_what_it_wrote(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder it is one with the package's name; `--json` names the files."""
    monkeypatch.chdir(tmp_path)
    made = json.loads(cli("action", "new", "count_lines", "--json").stdout)
    assert made == {
        "action": "count_lines",
        "folder": "opsmesh-action-count-lines",
        "files": [
            *("pyproject.toml", "README.md", "opsmesh_action_count_lines.py"),
            "test_opsmesh_action_count_lines.py",
        ],
    }
    again = cli("action", "new", "count_lines")
    assert (again.exit_code, "is not empty" in again.stderr) == (1, True)


@pytest.mark.parametrize("name", ["command", "timeout", "approve", "class", "Loud", "a-b", "../x"])
def test_new_refuses(cli: Cli, tmp_path: Path, name: str) -> None:
    """A name that a step cannot have, or has already, is refused before anything is written."""
    refused = cli("action", "new", name, str(tmp_path / "made"))
    assert refused.exit_code == 2
    assert not (tmp_path / "made").exists()


def test_ls(cli: Cli) -> None:
    """Every action is listed with what it does and the package that brings it."""
    listed = json.loads(cli("action", "ls", "--json").stdout)
    found = {row["action"]: row for row in listed["actions"]}
    assert {"collect", "command", "emit", "notify", "trigger", "wait"} <= found.keys()
    assert found["wait"]["summary"] == "go on when an event comes"
    assert all(row["package"].startswith("opsmesh ") for row in found.values())
    assert listed["problems"] == {}


def test_ls_names_what_is_broken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in that cannot be loaded is named, and the exit code says so."""
    ours = registry.discover()
    broken = registry.Found(ours.actions, {"odd": "action 'odd' (x:Y of x 1): ImportError: no x"})
    monkeypatch.setattr(registry, "discover", lambda: broken)
    listed = cli("action", "ls")
    assert (listed.exit_code, "ImportError: no x" in listed.stderr) == (1, True)
    assert "notify" in listed.stdout


def test_show(cli: Cli) -> None:
    """An action's keys have types, defaults and meanings; there is an example to copy."""
    shown = json.loads(cli("action", "show", "wait", "--json").stdout)
    keys = {key["name"]: key for key in shown["keys"]}
    assert (keys["on"]["type"], keys["on"]["required"]) == ("list of text", True)
    assert (keys["otherwise"]["type"], keys["otherwise"]["default"]) == ("fail | skip", "fail")
    assert shown["example"].startswith("wait: {on: ")
    assert shown["on_unknown"] == "resume"
    text = cli("action", "show", "wait").stdout
    assert "10m" in text
    assert "the awaited one" in text


def test_show_every_one(cli: Cli) -> None:
    """There is nothing about any of our actions that cannot be shown."""
    for key in registry.discover().actions:
        shown = cli("action", "show", key)
        assert shown.exit_code == 0
        assert f"{key}:" in shown.stdout


def test_show_unknown(cli: Cli) -> None:
    """A misspelt key names the nearest one."""
    shown = cli("action", "show", "notfy")
    assert (shown.exit_code, "did you mean 'notify'?" in shown.stderr) == (3, True)
