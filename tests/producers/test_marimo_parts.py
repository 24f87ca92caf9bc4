"""The parts of marimo's plug-in by themselves: seeds, places, failures, pace, and its wiring."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, spooled
from typer.testing import CliRunner

from marimo_opsmesh import cells, environment, failures, guard, kernel, sender
from marimo_opsmesh.notebook import Places
from marimo_opsmesh.observer import BURST, Observer
from marimo_opsmesh.sender import Fact, Sender
from opsmesh.cli.doctor import marimo as marimo_check
from opsmesh.cli.main import app
from opsmesh.producers.marimo.wiring import Marimo


@pytest.fixture(autouse=True)
def uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a count of failures of its own, and the plug-in is on; its end waits for its
    thread, however busy the machine is."""
    monkeypatch.setattr(sender, "FAREWELL", 60.0)
    monkeypatch.delenv("OPSMESH_MARIMO", raising=False)
    monkeypatch.setattr(guard.COUNT, "failures", 0)
    monkeypatch.setattr(guard.COUNT, "first", "")


@pytest.mark.parametrize(
    ("code", "seeds"),
    [
        ("random.seed(1)", {"random.seed": 1}),
        ("rng = np.random.default_rng(SEED)", {"np.random.default_rng": 7}),
        ("torch.manual_seed(3); torch.cuda.manual_seed_all(4)", None),
        ("model = Forest(random_state=5)", {"Forest": 5}),
        ("key = jax.random.PRNGKey(0)", {"jax.random.PRNGKey": 0}),
        ("random.seed()", {}),
        ("random.seed(other)", {}),
        ("random.seed(True)", {}),
        ("def f(seed): return seed", {}),
        ("random.seed(1", {}),
    ],
)
def test_seeds(code: str, seeds: dict[str, int] | None) -> None:
    """A seed is seen in calls that set one, given as a number or by a global variable."""
    expected = {"torch.manual_seed": 3, "torch.cuda.manual_seed_all": 4} if seeds is None else seeds
    assert cells.Seeds().of([code], {"SEED": 7, "other": "text"}) == expected


NOTEBOOK = '''
import marimo
app = marimo.App()

with app.setup:
    import os

@app.function
def double(x):
    return 2 * x

@app.cell
def _(mo):
    # a comment is of the cell
    a = """
text at the margin
    """
    return (a,)

@app.cell(hide_code=True)
async def named(a):
    b = await something(a)
    return
'''


@pytest.mark.parametrize(
    ("code", "place"),
    [
        ("import os", ("setup", 6)),
        ("def double(x):\n    return 2 * x", ("double", 9)),
        ('# a comment is of the cell\na = """\ntext at the margin\n    """', (None, 14)),
        ("b = await something(a)", ("named", 22)),
        ("b = 3", (None, None)),
        ("b = (", (None, None)),
    ],
)
def test_places(tmp_path: Path, code: str, place: tuple[str | None, int | None]) -> None:
    """A cell is found in the file by its code, whatever it is to marimo."""
    (tmp_path / "nb.py").write_text(NOTEBOOK)
    assert Places().of(str(tmp_path / "nb.py"), code) == place


def test_a_place_is_found_anew_when_the_file_was_saved(tmp_path: Path) -> None:
    """A notebook that has changed is read again; one that is gone has no places."""
    places, path = Places(), tmp_path / "nb.py"
    path.write_text(NOTEBOOK)
    assert places.of(str(path), "c = 4") == (None, None)
    path.write_text(NOTEBOOK.replace("b = await something(a)", "c = 4"))
    assert places.of(str(path), "c = 4") == ("named", 22)
    path.unlink()
    assert places.of(str(path), "c = 4") == (None, None)


class Silent(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_failure_that_fails_itself_is_told() -> None:
    """An exception whose text raises is told without it; what marimo made of one by its name."""
    assert failures.of_exception(Silent(), "a", "")["message"].startswith("(its text")
    made = SimpleNamespace(exception_type="NameError", msg="no x")
    assert failures.of_exception(made, "a", "") == {"error": "NameError", "message": "no x"}


def test_what_stops_a_cell_is_no_failure() -> None:
    """`mo.stop` and an interrupt are not failures, SystemExit is."""
    stop = type("MarimoStopError", (BaseException,), {})()
    kinds = (stop, KeyboardInterrupt(), SystemExit(1), None)
    assert [failures.is_failure(one) for one in kinds] == [False, False, True, False]


@pytest.mark.parametrize(
    ("words", "exporting"),
    [
        ("python /bin/marimo export html nb.py", True),
        ("python -m marimo -q export ipynb nb.py", True),
        ("python /bin/marimo edit export.py", False),
        ("python /bin/marimo run export", False),
        ("python -c code", False),
    ],
)
def test_an_export_is_known_by_its_command(words: str, exporting: bool) -> None:
    """marimo's own command line tells an export from an edit."""
    assert kernel.exporting(words.split()) is exporting


def _run(sender_: Sender, number: int) -> None:
    payload = {"notebook": "/x/nb.py", "cells": 2, "failed": 1, "duration_ms": 1.5, "run": number}
    sender_.put(Fact(sender.RUN, {**payload, "ran": [("a", "x = 1", False)]}))


def test_a_flood_of_runs_is_told_in_sums(
    agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 500 runs at once the first are told by themselves, the rest as one event, and all are
    counted."""
    monkeypatch.setattr(sender, "RATE", 1 / 3600)  # at once, however long it takes
    own = Sender()
    for number in range(500):
        _run(own, number + 1)
    own.close()
    payloads = [event["payload"] for event in agent.events]
    assert len(payloads) == sender.RUNS + 1
    assert sum(one.get("runs", 1) for one in payloads) == 500
    assert sum(one["cells"] for one in payloads) == 1000
    assert payloads[-1]["run"] == 500
    assert len(payloads[-1]["ran"]) + payloads[-1]["ran_omitted"] == 500 - sender.RUNS


def test_a_run_that_waits_is_told_by_itself(
    agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was held back comes without a further run."""
    monkeypatch.setattr(sender, "RUNS", 1)
    monkeypatch.setattr(sender, "RATE", 20.0)
    own = Sender()
    _run(own, 1)
    _run(own, 2)
    events = agent.wait_for(lambda events: len(events) == 2)
    assert [event["payload"]["run"] for event in events] == [1, 2]
    own.close()


def test_what_does_not_fit_is_counted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is full takes no more, and the mesh can tell of the loss."""
    monkeypatch.setattr(sender, "QUEUE", 3)
    own = Sender()
    own._thread = threading.current_thread()  # nobody takes anything
    for number in range(5):
        _run(own, number)
    own._queue.put(None)
    own._turn()
    assert len(spooled(home)) == 3
    lost = (home / "state/opsmesh/spool/dropped.log").read_text()
    assert '"events": 2' in lost


def test_a_process_that_was_forked_sends_nothing(agent: StandInAgent) -> None:
    """What a notebook forks off neither sends nor waits."""
    own = Sender()
    _run(own, 1)
    if (child := os.fork()) == 0:
        _run(own, 2)
        own.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    own.close()
    assert [event["payload"]["run"] for event in agent.events] == [1]


def _observer(told: list[Any]) -> Observer:
    standing_in = SimpleNamespace(put=told.append)
    return Observer(
        standing_in,  # type: ignore[arg-type]
        mode="edit",
        notebook=lambda: "/x/nb.py",
        variables=dict,
    )


def test_a_flood_of_failures_is_counted() -> None:
    """After the first failures of a flood the rest are counted, and whoever comes next says how
    many."""
    told: list[Fact] = []
    observer = _observer(told)
    cell = SimpleNamespace(cell_id="a", code="1 / 0")
    for _ in range(BURST + 50):
        observer.ended_cell(cell, None, SimpleNamespace(exception=ZeroDivisionError("no")))
    assert BURST <= len(told) < BURST + 50
    observer._pace._left = 1.0
    observer.ended_cell(cell, None, SimpleNamespace(exception=ZeroDivisionError("no")))
    # one more of the flood may have been told by then: a tenth of a second lets one through
    assert told[-1].payload["untold"] > 0
    untold = [fact.payload.get("untold", 0) for fact in told]
    assert sum(untold) == BURST + 51 - len(told)


def test_a_marimo_that_is_built_otherwise_is_left_alone() -> None:
    """A hook that is called with what it does not know counts a failure and raises nothing; after
    twenty it does nothing."""
    observer = _observer([])
    for _ in range(30):
        observer.began(object())
    assert guard.COUNT.failures == guard.PATIENCE
    assert "cells_to_run" in guard.COUNT.first
    assert guard.off()


def test_hooks_that_are_missing_are_named() -> None:
    """A kernel without hooks of the known names gets none, and the health says which."""
    hooked: list[Callable[..., None]] = []
    hooks = SimpleNamespace(add_on_finish=hooked.append)
    problem = kernel.hook(SimpleNamespace(_hooks=hooks), _observer([]))
    assert problem is not None
    assert "add_preparation" in problem
    assert "add_post_execution" in problem
    assert len(hooked) == 1


def test_a_package_is_found_by_its_modules() -> None:
    """A module is its distribution's, also where their names differ; ours and the standard
    library's are none."""
    import yaml

    found = environment.Packages().imported()
    assert found["pyyaml"] == yaml.__version__
    assert not {"json", "marimo-opsmesh", "marimo_opsmesh"} & set(found)


@pytest.mark.parametrize(
    ("facts", "mark", "words"),
    [
        ({}, [True], "its hooks are in"),
        ({"marimo": "0.26.0"}, [None], "tested with 0.25"),
        ({"problem": "add_on_finish: gone"}, [False], "add_on_finish: gone"),
        ({"failures": 3, "first_failure": "began: no"}, [False], "began: no; 3 failures"),
        ({"pid": "x"}, [], ""),
    ],
)
def test_doctor_says_how_the_plug_in_is(
    home: Path, facts: dict[str, object], mark: list[bool | None], words: str
) -> None:
    """A line says whether the hooks are in, with a marimo of which version, and what failed."""
    told = {"kind": "kernel", "pid": 1, "server_pid": 1, "marimo": "0.25.2", "tested": "0.25"}
    folder = home / "state/opsmesh/marimo"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({**told, "time": "now", **facts}))
    found = list(marimo_check.plugin())
    assert [check.ok for check in found] == mark
    assert all(words in check.detail for check in found)


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose .venv has a marimo (a stand-in: two folders)."""
    site = home / "project/.venv/lib/python3.12/site-packages"
    (site / "marimo").mkdir(parents=True)
    (home / "project/.venv/pyvenv.cfg").write_text("")
    monkeypatch.chdir(home / "project")
    monkeypatch.setenv("HOME", str(home))
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return site


def test_install_writes_a_pointer_and_the_plug_in(project: Path, home: Path) -> None:
    """`opsmesh install marimo` puts one file into each environment that has marimo, naming a folder
    with the plug-in; `uninstall` takes exactly that away, also what was compiled there."""
    before = sorted(home.rglob("*"))
    done = CliRunner().invoke(app, ["install", "marimo", "--yes"])
    assert done.exit_code == 0, done.output
    folder = Path((project / Marimo().pointer).read_text().strip())
    assert (folder / "marimo_opsmesh/mesh/outbox.py").is_file()
    points = next(folder.glob("*.dist-info/entry_points.txt")).read_text()
    assert "[marimo.kernel.lifespan]" in points
    (folder / "marimo_opsmesh/__pycache__").mkdir()
    (folder / "marimo_opsmesh/__pycache__/kernel.cpython-312.pyc").write_bytes(b"")
    done = CliRunner().invoke(app, ["uninstall", "marimo", "--yes"])
    assert done.exit_code == 0, done.output
    left = [path for path in home.rglob("*") if path not in before and "state" not in path.parts]
    assert left == []


def test_a_second_environment_keeps_the_first(
    project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environments that were wired before stay wired when another one is."""
    assert CliRunner().invoke(app, ["install", "marimo", "--yes"]).exit_code == 0
    other = home / "other/lib/python3.13/site-packages"
    (other / "marimo").mkdir(parents=True)
    (home / "other/pyvenv.cfg").write_text("")
    monkeypatch.chdir(home)
    monkeypatch.setenv("VIRTUAL_ENV", str(home / "other"))
    assert CliRunner().invoke(app, ["install", "marimo", "--yes"]).exit_code == 0
    assert (project / Marimo().pointer).is_file()
    assert (other / Marimo().pointer).is_file()
    rows = json.loads(CliRunner().invoke(app, ["install", "--list", "--json"]).stdout)
    assert [row["state"] for row in rows if row["tool"] == "marimo"] == ["wired"]


def test_what_has_the_package_needs_no_pointer(project: Path) -> None:
    """An environment in which the package is installed by itself is left as it is."""
    (project / "marimo_opsmesh-0.1.0.dist-info").mkdir()
    assert Marimo().pieces() == []
    assert "installed by itself" in Marimo().after()


def test_without_marimo_it_says_what_to_do(project: Path) -> None:
    """Where no environment has marimo, the reason names where it looked and the other way."""
    (project / "marimo").rmdir()
    done = CliRunner().invoke(app, ["install", "marimo"])
    assert done.exit_code == 1
    assert "opsmesh exec -- marimo" in done.output
