"""Tools of one piece of work, at once, in one real terminal session and one repository: what each
of them tells says so, and a profile finds them together."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import private_folders, until
from tests.handlers.mesh import write_profiles
from tests.producers import marimos, nvims, shells

OPSMESH: Final = Path(sys.executable).with_name("opsmesh")
#: What each tool tells here, and whose it is.
TOLD: Final = {
    "editor.save": "neovim",
    "python.test.failed": "pytest",
    "notebook.cell.failed": "marimo",
    "python.lint.failed": "ruff",
    "agent.command.executed": "mine",
    "term.pane.command.failed": "shell",
    "my.own.event": "emit",
}
PROFILES: Final = """
version: 1
profiles:
  saved_then_broken:
    on: [editor.save, python.test.failed]
    correlate: {within: 10m, key: [host, workspace]}
    actions: [command: ["true"]]
  in_one_terminal:
    on: [term.pane.command.failed, notebook.cell.failed]
    correlate: {within: 10m, key: [host, session_id]}
    actions: [command: ["true"]]
"""
HOOK: Final = {
    "hook_event_name": "PostToolUse",
    "session_id": "s-1",
    "tool_name": "Bash",
    "tool_input": {"command": "make check"},
    "tool_response": {"exit_code": 2},
}


def opsmesh(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return subprocess.run([OPSMESH, *arguments], capture_output=True, text=True, timeout=180)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small project with a fault of each kind, and its files."""
    top = tmp_path / "shop"
    (top / ".git").mkdir(parents=True)
    (top / "src").mkdir()
    (top / "tests").mkdir()
    (top / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (top / "src/cart.py").write_text("import os\n")
    (top / "tests/test_cart.py").write_text("def test_total():\n    assert 41 == 42\n")
    (top / "notes").mkdir()
    marimos.notebook(top / "notes/sales.py", broken="raise KeyError('region')")
    return top


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A running mesh of real processes; its home."""
    shells.need("tmux", "bash")
    if reason := marimos.missing():
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    private_folders(tmp_path, monkeypatch)
    for name in nvims.FOREIGN:
        monkeypatch.delenv(name, raising=False)
    nvims.wire()
    write_profiles(PROFILES)
    began = opsmesh("up", "--detach")
    try:
        assert began.returncode == 0, began.stdout + began.stderr
        yield tmp_path
    finally:
        opsmesh("down")


def stored() -> list[dict[str, Any]]:
    """Every event of the last minutes."""
    lines = opsmesh("tail", "--no-follow", "--since", "10m", "--json").stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_seven_tools_are_one_session_and_one_project(mesh: Path, repository: Path) -> None:
    """Editor, tests, notebook, linter, coding agent, shell and a command of one's own, all at once
    in a pane of tmux: their events have one session and one workspace, and profiles that ask for
    either find them together."""
    python, nvim = shlex.quote(sys.executable), shlex.quote(nvims.program())
    ours = shlex.quote(str(OPSMESH))
    hook = shlex.quote(json.dumps({**HOOK, "cwd": str(repository)}))
    at_once = (
        f"{nvim} --headless -n -i NONE src/cart.py -c write -c qall!",
        f"{ours} exec -- {python} -m pytest -q -p no:cacheprovider tests",
        f"{ours} exec -- {python} -m marimo export html notes/sales.py -o {mesh}/sales.html -f",
        f"{ours} check lint src",
        f"{ours} emit my.own.event n=1",
        f"echo {hook} | {ours} agent-hook --agent mine",
    )
    (mesh / "at-once").write_text("".join(f"({line}) &\n" for line in at_once) + "wait\n")
    shells.wire(mesh, "bash")
    with shells.terminal(mesh, "bash", MARIMO_SKIP_UPDATE_CHECK="1") as pane:
        pane.type(f". {mesh}/.bashrc", f"cd {repository}")
        pane.type(f"bash {mesh}/at-once >{mesh}/said 2>&1; sh -c 'exit 3'")

        def all_there() -> dict[str, dict[str, Any]]:
            found = {event["topic"]: event for event in stored() if event["topic"] in TOLD}
            return found if len(found) == len(TOLD) else {}

        try:
            found = until(all_there, timeout=90)
        except AssertionError:
            raise AssertionError((mesh / "said").read_text() + pane.screen()) from None
    where = {
        topic: (event["session_id"], event["workspace"], event["host"])
        for topic, event in found.items()
    }
    host = found["editor.save"]["host"]
    assert where == dict.fromkeys(TOLD, ("tmux:tmux.sock:$0", str(repository), host))
    assert {topic: event["source"] for topic, event in found.items()} == TOLD

    def both() -> bool:
        ended = [e for e in stored() if e["topic"] == "automation.run.succeeded"]
        return {e["payload"]["profile"] for e in ended} == {"saved_then_broken", "in_one_terminal"}

    until(both)
