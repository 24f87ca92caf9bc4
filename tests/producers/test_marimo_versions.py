"""Another marimo than the plug-in is made for: a real one that has no place for its hooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.producers import marimos
from tests.producers.agent import StandInAgent, until
from tests.producers.marimos import export, notebook, serving
from tests.producers.process import producing
from tests.producers.test_marimo import COMPLETED, FAILED, FAULTY

from opsmesh.cli.doctor import marimo as marimo_check
from opsmesh.producers.exec import bridge

#: The newest one whose kernel has no hooks.
VERSION = "0.14.17"
CELLS = {**FAULTY, "_": "x + 2\nreturn"}
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("marimo")]


@pytest.fixture(scope="module")
def old() -> Path:
    """An environment with that marimo, installed once."""
    told = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(told) if told.startswith("/") else Path.home() / ".cache"
    folder = cache / "opsmesh-tests" / f"marimo-{VERSION}"
    if not (folder / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        python = str(folder / "bin/python")
        command = [python, "-m", "pip", "install", "-q", f"marimo=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"marimo {VERSION} cannot be installed: {done.stderr.strip()[-200:]}")
        (folder / "installed").touch()
    return folder


def test_the_plug_in_leaves_it_alone(agent: StandInAgent, old: Path, tmp_path: Path) -> None:
    """Its export ends and prints as without the plug-in, nothing is told, and doctor says why."""
    path = notebook(tmp_path / "sales.py", **CELLS)
    python = old / "bin/python"
    with_it = export(path, python=python, env={"PYTHONPATH": str(bridge.folder())})
    without = export(path, python=python)
    assert (with_it.returncode, with_it.stderr) == (without.returncode, without.stderr)
    assert agent.events == []
    found = list(marimo_check.plugin())
    assert [check.ok for check in found] == [False]
    assert "no attribute '_hooks'" in found[0].detail


def test_the_observer_tells_instead(
    agent: StandInAgent, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same notebook in its editor is told by the producer that looks on."""
    monkeypatch.setattr(marimos, "MARIMO", old / "bin/marimo")
    path, log = notebook(tmp_path / "sales.py", **CELLS), tmp_path / "observer.log"

    def told(topic: str) -> list[dict[str, Any]]:
        return [event["payload"] for event in agent.events if event["topic"] == topic]

    with serving("edit", path, env={"PYTHONPATH": str(bridge.folder())}) as server:
        servers = f"servers=http://127.0.0.1:{server.port}"
        with producing("marimo", servers, log=log), server.page() as page:
            until(lambda: b"watching /" in log.read_bytes())
            page.run_all()
            until(lambda: len(told(COMPLETED)) == 1)
    [failed], [ran] = told(FAILED), told(COMPLETED)
    assert (failed["error"], failed["cell_name"]) == ("KeyError", "totals")  # tracebacks come late
    assert (ran["cells"], ran["failed"], ran["not_run"]) == (4, 1, 1)
