"""The action `collect`, with real programs and files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conftest import run
from tests.handlers.conftest import EVENT

from opsmesh.handlers.actions.collect import Collect
from opsmesh.handlers.actions.contract import Action, StepContext, StepResult

Context = Callable[..., StepContext]


def do(items: Any, ctx: StepContext) -> tuple[StepResult, Path, dict[str, dict[str, Any]]]:
    result = run(Collect.parse(items).run(ctx))
    assert result.ok
    folder = Path(result.evidence_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    return result, folder, {file["name"]: file for file in manifest["files"]}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others in PATH, for programs that a test writes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def write_tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_bundle(context: Context, tmp_path: Path) -> None:
    """A bundle holds the event's own bytes and each piece, with sums that are right."""
    (tmp_path / "app.conf").write_text("key = 1\n")
    ctx = context()
    assert isinstance(Collect.parse(["journal"]), Action)
    result, folder, files = do(
        [{"name": "said", "command": ["echo", "${{ host }}"]}, {"file": f"{tmp_path}/app.conf"}],
        ctx,
    )
    assert folder == ctx.bundles / "2026-11-23" / "run1-step"
    assert (folder / "event.json").read_bytes() == ctx.data
    assert (folder / "said").read_text() == "dev\n"
    assert (folder / "app.conf").read_text() == "key = 1\n"
    assert list(files) == ["event.json", "said", "app.conf"]
    for name, file in files.items():
        data = (folder / name).read_bytes()
        assert (file["sha256"], file["size"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert files["said"]["command"] == ["echo", "dev"]
    assert files["app.conf"]["path"] == f"{tmp_path}/app.conf"
    assert result.output == {
        "path": str(folder),
        "bundle": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(),
        "files": list(files),
        "errors": [],
        "facts": {},
    }
    assert [path.name for path in folder.parent.iterdir()] == ["run1-step"]
    assert folder.stat().st_mode & 0o077 == 0


def test_failing_collectors(context: Context, tmp_path: Path) -> None:
    """A piece that cannot be got is recorded with its error, and the bundle stands."""
    os.mkfifo(tmp_path / "pipe")
    result, folder, files = do(
        [
            {"name": "absent", "command": ["no-such-command-here"]},
            {"name": "fails", "command": ["sh", "-c", "echo part; exit 2"]},
            {"name": "hangs", "command": ["sleep", 60], "timeout": "100ms"},
            {"file": "/no/such/file"},
            {"file": str(tmp_path / "pipe")},
            {"name": "template", "file": "${{ event.payload.nope }}"},
            {"name": "good", "command": ["echo", "x"]},
        ],
        context(),
    )
    errors = {name: file["error"] for name, file in files.items()}
    assert errors["absent"].startswith("command 'no-such-command-here' is not found")
    assert errors["fails"] == "exit code 2"
    assert (folder / "fails").read_text() == "part\n"
    assert errors["hangs"] == "stopped after 0.1 s"
    assert errors["file"] == "/no/such/file: No such file or directory"
    assert errors["pipe"].endswith("not a regular file")
    assert errors["template"].startswith("${{ event.payload.nope }}: no field")
    assert errors["good"] is None
    assert len(result.output["errors"]) == 6


def test_large_file(context: Context, tmp_path: Path) -> None:
    """Of a file over its limit the end is kept, and marked."""
    (tmp_path / "log").write_text("first\nlast\n")
    _, folder, files = do([{"file": f"{tmp_path}/log", "max_bytes": 5}], context())
    assert (folder / "log").read_text() == "last\n"
    assert files["log"]["truncated"]


def test_secrets(context: Context) -> None:
    """Secrets in what is collected are removed, from commands too; other bytes stay."""
    token = "ghp_" + "a1B2" * 9
    _, folder, files = do(
        [
            {"name": "text", "command": ["echo", token]},
            {"name": "bytes", "command": ["printf", r"\377\000x"]},
        ],
        context(),
    )
    assert token not in (folder / "text").read_text()
    assert token not in (folder / "manifest.json").read_text()
    assert files["text"]["redacted"]
    assert (folder / "bytes").read_bytes() == b"\xff\0x"


def test_units(context: Context, tools: Path) -> None:
    """The shorthands ask the event's own manager for its unit; a failed unit is no error."""
    write_tool(tools, "systemctl", 'echo "systemctl $*"; case "$*" in *status*) exit 3;; esac')
    write_tool(tools, "journalctl", 'echo "journalctl $*"')
    _, folder, files = do(["unit_status", "unit_file", "journal"], context())
    assert all(file["error"] is None for file in files.values())
    status = (folder / "unit_status.txt").read_text()
    assert status == "systemctl --user --no-pager --full status -- backup.service\n"
    assert " cat -- backup.service" in (folder / "unit_file.txt").read_text()
    journal = (folder / "journal.txt").read_text()
    assert "--user-unit=backup.service" in journal
    assert f"--since=@{EVENT.ts_us // 1_000_000 - 600}" in journal


def test_journal_options(context: Context, tools: Path) -> None:
    """A journal item may name its unit, time and lines; without a unit it is all of it."""
    write_tool(tools, "journalctl", 'echo "journalctl $*"')
    event = msgspec.structs.replace(EVENT, payload={})
    items = [{"journal": {"unit": "a.service", "since": "1m", "lines": 5}}, "journal", "unit_file"]
    _, folder, files = do(items, context(event=event))
    first = (folder / "journal.txt").read_text()
    assert "--lines=5 --unit=a.service" in first
    assert f"--since=@{EVENT.ts_us // 1_000_000 - 60}" in first
    assert "unit" not in (folder / "journal-2.txt").read_text()
    assert files["unit_file.txt"]["error"] == "the event's payload names no unit"


def test_unit_from_a_stranger(context: Context, tools: Path) -> None:
    """A payload's text that is no unit name never reaches a tool."""
    write_tool(tools, "systemctl", "echo called")
    event = msgspec.structs.replace(EVENT, payload={"unit": "--force"})
    _, _, files = do(["unit_status"], context(event=event))
    assert files["unit_status.txt"]["error"] == "'--force' is not the name of a unit"


def test_absent_tool(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is not installed is recorded, and is not fatal."""
    monkeypatch.setenv("PATH", str(tmp_path))
    _, _, files = do(["journal"], context())
    assert files["journal.txt"]["error"].startswith("command 'journalctl' is not found")


def test_again(context: Context) -> None:
    """A step that runs again keeps its bundle; an edited profile makes another beside it."""
    items = [{"name": "now", "command": ["date", "+%N"]}]
    _, first, files = do(items, context())
    _, again, same = do(items, context(attempt=3))
    assert (first, files) == (again, same)
    _, other, _ = do(items, context(profile_hash="def"))
    assert other.name == "run1-step.2"


@pytest.mark.parametrize(
    "items",
    [
        [],
        ["jurnal"],
        [{"command": ["a"], "file": "b"}],
        [{"name": "x"}],
        [{"name": "../x", "file": "b"}],
        [{"file": "b", "max_bytes": 0}],
        [{"journal": {"lnes": 3}}],
    ],
)
def test_refused(items: Any) -> None:
    """An item that is not exactly one kind is refused when the profile is loaded."""
    with pytest.raises(ValueError):
        Collect.parse(items)
