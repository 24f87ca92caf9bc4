"""`opsmesh install pytest` in a real environment that has pytest, and nothing of opsmesh."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.house.test_wheel import Strange
from tests.producers.agent import spooled
from typer.testing import CliRunner

from opsmesh.cli.main import app


def test_a_wired_environment_tells_until_it_is_unwired(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `install` the project's pytest tells its failures; after `uninstall` it does not, and
    nothing is left there."""
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (project / "test_it.py").write_text("def test_bad(): assert 1 == 2\n")
    theirs = Strange(project / ".venv")
    before = set(theirs.site.iterdir())
    monkeypatch.chdir(project)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    seen = []
    for command in ("install", "uninstall"):
        done = CliRunner().invoke(app, [command, "pytest", "--yes"])
        assert done.exit_code == 0, done.output
        kept = {name: v for name, v in os.environ.items() if not name.startswith("PY")}
        argv = [str(theirs.python), "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        ran = subprocess.run(argv, cwd=project, env=kept, capture_output=True, check=False)
        assert ran.returncode == 1, ran.stdout
        seen.append([event["payload"]["nodeid"] for event in spooled(home)])
    assert seen == [["test_it.py::test_bad"]] * 2
    assert set(theirs.site.iterdir()) == before
