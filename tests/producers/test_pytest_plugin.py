"""The pytest plugin, in real pytest runs that have nothing of opsmesh but this one module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, spooled, standing_in

import pytest_opsmesh
from opsmesh.router import losses, spool_overflow, spool_room
from opsmesh.schemas import envelope, registry
from pytest_opsmesh import editor
from pytest_opsmesh.mesh.spool import Spool

FAILING = """
import pytest

def test_good(): pass
def test_bad(): assert 41 == 42
@pytest.fixture
def broken(): raise RuntimeError("no database")
def test_setup(broken): pass
@pytest.fixture
def leaky():
    yield
    raise OSError("still open")
def test_teardown(leaky): pass
@pytest.mark.xfail
def test_expected(): assert False
@pytest.mark.skip
def test_skipped(): pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of somebody else, with tests of every outcome."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_app.py").write_text(FAILING)
    return folder


def run_pytest(
    project: Path, *arguments: str, env: dict[str, str] | None = None, refresh: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run pytest with the plugin from a folder that holds only it."""
    alone = project.parent / "alone"
    package = Path(pytest_opsmesh.__file__).parent
    if refresh:
        shutil.copytree(package, alone / package.name, dirs_exist_ok=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPSMESH_", "PYTEST_", "VSCODE_", "NVIM", "TERM_PROGRAM"))
    }
    base = {**kept, "PYTHONPATH": str(alone), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "pytest_opsmesh", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *arguments],
        cwd=project,
        env={**base, **(env or {})},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def phases(events: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    return {
        (event["payload"]["nodeid"].rpartition("::")[2], event["payload"]["phase"])
        for event in events
        if event["topic"] == "python.test.failed"
    }


EVERY_FAILURE = {("test_bad", "call"), ("test_setup", "setup"), ("test_teardown", "teardown")}


def test_each_failing_phase_is_an_event(agent: StandInAgent, project: Path) -> None:
    """Failures of call, setup and teardown are told; what passes, skips or xfails is not."""
    done = run_pytest(project)
    assert done.returncode == 1
    assert phases(agent.events) == EVERY_FAILURE
    assert len(agent.events) == 3
    assert "opsmesh:" not in done.stdout + done.stderr


def test_an_event_says_where_and_why(agent: StandInAgent, project: Path) -> None:
    """Message, path, line and report of the failure are those that pytest shows."""
    run_pytest(project)
    [bad] = [e for e in agent.events if e["payload"]["nodeid"].endswith("test_bad")]
    payload = bad["payload"]
    assert payload["message"] == "assert 41 == 42"
    assert (payload["path"], payload["lineno"]) == (str(project / "test_app.py"), 5)
    assert "assert 41 == 42" in payload["longrepr"]
    assert payload["duration_ms"] >= 0
    assert (bad["source"], bad["workspace"]) == ("pytest", str(project))


def test_every_event_is_a_valid_envelope_of_its_topic(agent: StandInAgent, project: Path) -> None:
    """The agent's own functions complete and check each event."""
    run_pytest(project, env={"NVIM": "/run/nvim.sock"})
    topics = registry.load_registry(None)
    for event in agent.events:
        del event["_reply"]
        defaults = {"severity": "error", "host": "laptop"}
        _, whole = envelope.complete(event, defaults=defaults, now_us=0)
        topics.check(whole.topic, whole.payload)
    assert len(agent.events) == 6


def test_events_of_one_run_share_its_ids(agent: StandInAgent, project: Path) -> None:
    """One session has one run id and one correlation id, and those of `opsmesh exec` win."""
    run_pytest(project)
    assert len({(e["run_id"], e["correlation_id"]) for e in agent.events}) == 1
    agent.events.clear()
    run_pytest(
        project, env={"OPSMESH_RUN_ID": "r", "OPSMESH_CORRELATION_ID": "c", "OPSMESH_HOPS": "2"}
    )
    assert {(e["run_id"], e["correlation_id"], e["hops"]) for e in agent.events} == {("r", "c", 2)}


def test_events_of_one_run_are_numbered(agent: StandInAgent, project: Path) -> None:
    """Each session counts its events from 1 under a boot of its own, so that a lost one is seen."""
    run_pytest(project, env={"OPSMESH_RUN_ID": "the-run"})
    run_pytest(project, env={"OPSMESH_RUN_ID": "the-run"})
    assert [event["seq"] for event in agent.events] == [1, 2, 3, 1, 2, 3]
    assert len({event["boot_id"] for event in agent.events}) == 2


def test_a_run_in_an_editor_is_told_as_the_editors_too(agent: StandInAgent, project: Path) -> None:
    """In a terminal of VS Code each failure is an editor.test.failed as well."""
    run_pytest(project, "-k", "bad", env={"TERM_PROGRAM": "vscode"})
    assert [e["topic"] for e in agent.events] == ["python.test.failed", "editor.test.failed"]
    assert agent.events[1]["payload"]["editor"] == "vscode"


@pytest.mark.parametrize(
    ("env", "known"),
    [
        ({}, None),
        ({"TERM_PROGRAM": "WezTerm"}, None),
        ({"TERM_PROGRAM": "vscode"}, "vscode"),
        ({"VSCODE_PID": "4711"}, "vscode"),
        ({"OPSMESH_EDITOR_SESSION": "vscode:1f2e3d4c"}, "vscode"),
        ({"NVIM": "/run/user/1000/nvim.4711.0", "TERM_PROGRAM": "vscode"}, "neovim"),
        ({"NVIM": "", "OPSMESH_EDITOR_SESSION": "helix:7"}, "helix"),
    ],
)
def test_an_editor_is_known_by_its_variables(env: dict[str, str], known: str | None) -> None:
    """Each editor leaves something in the environment of what it starts; the innermost counts."""
    assert editor.of_environment(env) == known


def test_under_xdist_only_the_controller_tells(agent: StandInAgent, project: Path) -> None:
    """With two workers each failure is told once, with the worker's name."""
    run_pytest(project, "-p", "xdist", "-n", "2")
    assert phases(agent.events) == EVERY_FAILURE
    assert len(agent.events) == 3
    assert {e["payload"]["worker"] for e in agent.events} <= {"gw0", "gw1"}


def test_a_worker_that_dies_is_a_crash_of_its_test(agent: StandInAgent, project: Path) -> None:
    """An xdist worker that vanishes is told with the test that it was in."""
    (project / "test_app.py").write_text("import os\ndef test_gone(): os._exit(7)\n")
    run_pytest(project, "-p", "xdist", "-n", "1", "--max-worker-restart", "0")
    assert ("test_gone", "crash") in phases(agent.events)


def test_a_file_that_cannot_be_imported_is_told(agent: StandInAgent, project: Path) -> None:
    """A collection error is an event of the phase `collect`."""
    (project / "test_app.py").write_text("import nothing_like_this\n")
    assert run_pytest(project).returncode == 2
    [event] = agent.events
    assert event["payload"]["phase"] == "collect"
    assert "nothing_like_this" in event["payload"]["longrepr"]


def test_with_no_agent_every_failure_is_in_the_spool(home: Path, project: Path) -> None:
    """With nobody listening, the spool has the events when pytest has ended."""
    assert run_pytest(project).returncode == 1
    assert phases(spooled(home)) == EVERY_FAILURE


def test_an_agent_that_hangs_costs_a_bounded_wait_and_no_event(home: Path, project: Path) -> None:
    """What is not answered in time is in the spool, and the run's result is its own."""
    with standing_in(home, hang=True):
        assert run_pytest(project).returncode == 1
    assert phases(spooled(home)) == EVERY_FAILURE


def test_the_first_event_of_a_machine_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing of the spool's folders is made for their owner alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    Spool("pytest").write([b"{}"])
    made = [tmp_path / "state" / below for below in ("", "opsmesh", "opsmesh/spool")]
    assert [one.stat().st_mode & 0o777 for one in made] == [0o700] * 3


def test_a_refused_event_is_neither_spooled_nor_shown(home: Path, project: Path) -> None:
    """An event that the agent will never take is dropped; only --opsmesh-verbose says so."""
    with standing_in(home, refuse="no such topic"):
        quiet = run_pytest(project)
        asked = run_pytest(project, "--opsmesh-verbose")
    assert spooled(home) == []
    assert "opsmesh:" not in quiet.stdout
    assert "opsmesh: 0 sent, 0 spooled, 3 lost: no such topic" in asked.stdout


def test_a_full_spool_is_respected_and_what_is_lost_is_counted(home: Path, project: Path) -> None:
    """The run's result is its own, the spool does not grow, and the agent can tell of the loss."""
    folder = home / "state/opsmesh/spool"
    folder.mkdir(parents=True)
    spool_room.set_limits(str(folder), 1, "refuse")
    done = run_pytest(project, "--opsmesh-verbose")
    assert done.returncode == 1
    assert "3 lost" in done.stdout or "the spool is full" in done.stdout
    assert spooled(home) == []
    (loss,) = losses.total(str(folder))
    assert (loss.source, loss.events, loss.reasons) == ("pytest", 3, ("refuse",))


def test_an_error_of_its_own_is_counted_and_not_seen(home: Path, project: Path) -> None:
    """A plug-in that cannot make its events leaves the run as it is, and the agent can tell."""
    run_pytest(project, "--collect-only")  # puts the plug-in there
    (project.parent / "alone/pytest_opsmesh/facts.py").write_text(
        "def is_subtest(report): return 1 / 0\n"
    )
    done = run_pytest(project, refresh=False)
    assert "1 failed, 2 passed, 1 skipped, 1 xfailed, 2 errors" in done.stdout
    assert (done.returncode, done.stderr) == (1, "")
    assert spooled(home) == []
    (loss,) = losses.total(str(home / "state/opsmesh/spool"))
    assert (loss.source, loss.reasons) == ("pytest", ("error",))


def test_what_it_spools_is_seen_by_the_gauge(home: Path, project: Path) -> None:
    """The agent knows at once that something was written."""
    run_pytest(project)
    folder = str(home / "state/opsmesh/spool")
    assert spool_room.Gauge(folder).used == spool_overflow.count(folder) > 0


def test_a_state_folder_that_cannot_be_made_changes_nothing(tmp_path: Path, project: Path) -> None:
    """With no agent and no spool, the run's result and output are as without the plugin."""
    (tmp_path / "file").write_text("")
    env = {"XDG_STATE_HOME": f"{tmp_path}/file", "XDG_RUNTIME_DIR": f"{tmp_path}/none"}
    done = run_pytest(project, env=env)
    assert done.returncode == 1
    assert "1 failed, 2 passed, 1 skipped, 1 xfailed, 2 errors" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "env"), [((), {"OPSMESH_PYTEST": "0"}), (("-p", "no:pytest_opsmesh"), {})]
)
def test_it_can_be_turned_off(
    agent: StandInAgent, project: Path, arguments: tuple[str, ...], env: dict[str, str]
) -> None:
    """With the variable or the option, nothing is sent."""
    run_pytest(project, *arguments, env=env)
    assert agent.events == []


def test_odd_text_in_a_failure_is_carried(agent: StandInAgent, project: Path) -> None:
    """Lone surrogates, emoji, control characters and long reports arrive as valid JSON."""
    (project / "test_app.py").write_text(
        'def test_odd():\n    raise ValueError("\\ud800 \\x1b[31m ✨ " + "x" * 40000)\n'
    )
    assert run_pytest(project).returncode == 1
    [event] = agent.events
    assert len(event["payload"]["longrepr"].encode("utf-8", "surrogatepass")) <= 8 * 1024
    assert len(event["payload"]["message"]) <= 2000


def test_more_failures_than_a_socket_buffers_arrive(agent: StandInAgent, project: Path) -> None:
    """Four hundred long failures are all delivered, once each, in their order."""
    (project / "test_app.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', range(400))\n"
        "def test_n(n): raise ValueError('y' * 3000)\n"
    )
    run_pytest(project, "-q", "--tb=short")
    ids = [event["id"] for event in agent.events]
    assert len(ids) == len(set(ids)) == 400
    assert ids == [event["id"] for event in sorted(agent.events, key=lambda e: str(e["ts_utc"]))]


def test_the_module_needs_the_standard_library_alone() -> None:
    """Importing the plugin in an isolated interpreter brings in no foreign module."""
    path = Path(pytest_opsmesh.__file__).parents[1]
    code = (
        f"import sys; sys.path.insert(0, {str(path)!r}); import pytest_opsmesh, json;"
        "tops = {name.partition('.')[0] for name in sys.modules};"
        "print(json.dumps(sorted(tops - set(sys.stdlib_module_names))))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["__main__", "pytest_opsmesh"]
