"""`opsmesh profile validate`, on an app of this test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from opsmesh.cli.profiles.validate import validate

GOOD = "profiles:\n  p:\n    on: editor.save\n    actions: [collect: journal]\n"
WARNED = GOOD.replace("editor.save", "deploy.done")
WRONG = GOOD.replace("on: editor.save", "on: editor.save\n    where: event.payload.pth == 'x'")

Cli = Callable[..., Result]


@pytest.fixture
def config(home: Path) -> Path:
    """The user's own configuration folder."""
    folder = home / "config" / "opsmesh"
    folder.mkdir()
    return folder


@pytest.fixture
def cli(config: Path) -> Cli:
    """Run `validate` with these arguments."""
    app = typer.Typer()
    app.command()(validate)

    def invoke(*arguments: str) -> Result:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return invoke


def test_nothing_wrong(cli: Cli, config: Path) -> None:
    """Exit code 0, nothing on standard output, and a summary."""
    (config / "profiles.yaml").write_text(GOOD)
    result = cli()
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "1 profile, nothing wrong: p\n"
    (config / "profiles.yaml").unlink()
    assert cli().stderr == "0 profiles, nothing wrong: none yet\n"


def test_errors(cli: Cli, config: Path) -> None:
    """Exit code 1; each finding with its place, and its hint on a line of its own."""
    (config / "profiles.yaml").write_text(WRONG)
    result = cli()
    assert result.exit_code == 1
    assert result.stdout == (
        "profiles.yaml:4:26: error: editor.save has no payload field 'pth'\n"
        "    did you mean 'path'?\n"
    )
    assert result.stderr == "1 error; 1 profile can be loaded\n"


def test_strict(cli: Cli, config: Path) -> None:
    """A warning fails with --strict only."""
    (config / "profiles.yaml").write_text(WARNED)
    assert cli().exit_code == 0
    assert "warning: topic 'deploy.done' is not registered" in cli().stdout
    assert cli("--strict").exit_code == 1


def test_one_file_with_topics_beside_it(cli: Cli, tmp_path: Path) -> None:
    """A file is checked wherever it lies, with the topics.yaml beside it."""
    file = tmp_path / "mine.yaml"
    file.write_text(WARNED)
    assert cli(str(file), "--strict").exit_code == 1
    (tmp_path / "topics.yaml").write_text(
        "version: 1\ntopics:\n  deploy.done: {description: done}\n"
    )
    assert cli(str(file), "--strict").exit_code == 0
    assert cli(str(tmp_path)).stderr == "0 profiles, nothing wrong: none yet\n"


def test_json(cli: Cli, config: Path) -> None:
    """As JSON: the names of what can be loaded, and findings with their severity."""
    (config / "profiles.yaml").write_text(WRONG)
    (config / "profiles.d").mkdir()
    (config / "profiles.d" / "q.yaml").write_text(WARNED.replace("p:", "q:"))
    result = cli("--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["profiles"] == ["p", "q"]
    assert told["errors"] == [
        {
            "severity": "error",
            "file": "profiles.yaml",
            "line": 4,
            "column": 26,
            "message": "editor.save has no payload field 'pth'",
            "hint": "did you mean 'path'?",
        }
    ]
    assert [one["severity"] for one in told["warnings"]] == ["warning"]
    assert (told["notes"], told["problems"]) == ([], [])


def test_no_such_file(cli: Cli) -> None:
    """What is not there is exit code 3, and no success."""
    result = cli("nowhere.yaml")
    assert result.exit_code == 3
    assert "no such file or folder" in result.stderr
