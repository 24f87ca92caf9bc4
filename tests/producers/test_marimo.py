"""marimo's plug-in in real exports of notebooks: what fails, what ran, and with what."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import private_folders
from tests.producers.agent import spooled, standing_in
from tests.producers.marimos import environment_of_marimo, export, missing, notebook

import marimo_opsmesh
from opsmesh.schemas import envelope, registry

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.xdist_group("marimo"),
]
FAILED, COMPLETED = "notebook.cell.failed", "notebook.run.completed"
#: A cell with a fault in its second line, one that needs it, and two that are well.
FAULTY = {
    "first": "import random\nrandom.seed(42)\nx = 1\nreturn x,",
    "totals": "table = {}\ny = table['region'] + x\nreturn y,",
    "chart": "y + 1\nreturn",
    "_": "import msgspec\nx + 2\nreturn",
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """The events of one export of a faulty notebook in a git repository."""
    home = tmp_path_factory.mktemp("home")
    project = home / "project"
    (project / ".git").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        with standing_in(home) as agent:
            path = notebook(project / "sales.py", **FAULTY)
            done = export(path, env={"XDG_SESSION_ID": "7", "PYTHONHASHSEED": "3"})
            assert done.returncode == 1, done.stderr  # marimo's own: some cells failed
            assert "opsmesh" not in done.stdout + done.stderr
            yield agent.wait_for(lambda events: len(events) == 2)


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """An environment that has marimo and what it needs, and nothing of ours."""
    return environment_of_marimo(tmp_path / "alone")


def test_only_the_cell_that_raised_is_told(told: list[dict[str, Any]]) -> None:
    """One event for the cell with the fault, none for the one that could not run because of it;
    then the run's."""
    assert [event["topic"] for event in told] == [FAILED, COMPLETED]


def test_a_failure_says_where_and_why(told: list[dict[str, Any]]) -> None:
    """Error, message, name of the cell, line of the cell and of the file are those of the fault."""
    payload = told[0]["payload"]
    assert payload["notebook"].endswith("/project/sales.py")
    assert (payload["error"], payload["message"]) == ("KeyError", "'region'")
    assert (payload["cell_name"], payload["line"], payload["mode"]) == ("totals", 2, "export")
    lines = Path(payload["notebook"]).read_text().splitlines()
    assert "table['region']" in lines[payload["file_line"] - 1]
    assert payload["traceback_tail"].endswith("KeyError: 'region'\n")


def test_a_run_counts_its_cells(told: list[dict[str, Any]]) -> None:
    """Of four cells one failed and one did not run."""
    payload = told[1]["payload"]
    counts = {key: payload[key] for key in ("cells", "failed", "not_run", "interrupted", "run")}
    assert counts == {"cells": 4, "failed": 1, "not_run": 1, "interrupted": False, "run": 1}
    assert 0 < payload["duration_ms"] < 60_000


def test_a_run_names_the_code_that_ran(told: list[dict[str, Any]]) -> None:
    """The cells that ran stand in their order with the hashes of their code, the failed marked."""
    ran = told[1]["payload"]["ran"]
    codes = [FAULTY[name].rpartition("\nreturn")[0] for name in ("first", "totals", "_")]
    assert [one["sha256"] for one in ran] == [sha256(code.encode()).hexdigest() for code in codes]
    assert [one.get("failed", False) for one in ran] == [False, True, False]
    everything = [FAULTY[name].rpartition("\nreturn")[0] for name in FAULTY]
    hashes = "\n".join(sha256(code.encode()).hexdigest() for code in everything)
    assert told[1]["payload"]["code_sha256"] == sha256(hashes.encode()).hexdigest()


def test_a_run_names_what_it_depended_on(told: list[dict[str, Any]]) -> None:
    """Python, the hash seed, versions of imported packages, and the seeds that cells set."""
    payload = told[1]["payload"]
    assert payload["seeds"] == {"random.seed": 42}
    found = payload["environment"]
    assert found["python"] == sys.version.split()[0]
    assert found["pythonhashseed"] == "3"
    assert found["packages"]["msgspec"] == version("msgspec")
    assert found["packages"]["marimo"] == version("marimo")
    assert not {"pytest", "pandas"} & set(found["packages"])


def test_session_and_workspace_are_those_of_every_tool(told: list[dict[str, Any]]) -> None:
    """The login session, and the git root of the notebook."""
    assert {event["session_id"] for event in told} == {"7"}
    root = Path(told[0]["payload"]["notebook"]).parent
    assert {event["workspace"] for event in told} == {str(root.resolve())}


def test_every_event_is_a_valid_envelope_of_its_topic(told: list[dict[str, Any]]) -> None:
    """The agent's own functions complete and check each event; both are numbered."""
    topics = registry.load_registry(None)
    for event in told:
        known = {key: value for key, value in event.items() if key != "_reply"}
        defaults = {"severity": "error", "host": "laptop"}
        _, whole = envelope.complete(known, defaults=defaults, now_us=0)
        topics.check(whole.topic, whole.payload)
    assert [event["seq"] for event in told] == [1, 2]


def test_exec_brings_it_into_reach(home: Path, alone: Path, tmp_path: Path) -> None:
    """Below `opsmesh exec` an environment with marimo alone tells, and nothing was installed in it;
    with no mesh, the spool has the events in their order."""
    path = notebook(tmp_path / "sales.py", **FAULTY)
    opsmesh = [sys.executable, "-m", "opsmesh.cli.entry", "exec", "--"]
    done = export(path, *opsmesh, python=alone / "bin/python")
    assert done.returncode == 1, done.stderr
    events = spooled(home)
    assert [event["topic"] for event in events] == [FAILED, COMPLETED, "shell.command.failed"]
    assert len({event["correlation_id"] for event in events}) == 1


def test_the_plug_in_needs_the_standard_library_alone() -> None:
    """Importing every module of it in an isolated interpreter brings in no foreign module."""
    path = Path(marimo_opsmesh.__file__).parent
    names = sorted(f"marimo_opsmesh.{one.stem}" for one in path.glob("[a-z]*.py"))
    code = (
        f"import sys; sys.path.insert(0, {str(path.parent)!r}); import json, {', '.join(names)};"
        "tops = {name.partition('.')[0] for name in sys.modules};"
        "print(json.dumps(sorted(tops - set(sys.stdlib_module_names))))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["__main__", "__mp_main__", "marimo_opsmesh"]
