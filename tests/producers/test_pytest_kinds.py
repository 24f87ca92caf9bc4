"""What pytest can report beside a plain failure: subtests, doctests, files that cannot be imported,
tests that run tests; alone and under xdist. Real runs, in a repository, with no mesh."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import private_folders
from tests.producers.agent import spooled
from tests.producers.test_pytest_plugin import run_pytest

TESTS = """
import subprocess, sys
import pytest

pytest_plugins = ["pytester"]

def test_parts(subtests):
    for number in range(3):
        with subtests.test("of it", number=number):
            assert number != 1

def test_expected_part(subtests):
    with subtests.test("of it"):
        pytest.xfail("known")

def test_runs_others(pytester):
    pytester.makepyfile("def test_meant(): assert 0")
    pytester.runpytest_subprocess("-p", "pytest_opsmesh").assert_outcomes(failed=1)

def test_runs_others_within(pytester):
    pytester.makepyfile("def test_meant(): assert 0")
    for _ in range(2):
        pytester.runpytest_inprocess("-p", "pytest_opsmesh").assert_outcomes(failed=1)

@pytest.fixture
def leaky():
    yield
    raise OSError("still open")

def test_both(leaky):
    assert 0
"""


@dataclass(frozen=True)
class Ran:
    """A run, and what it told."""

    done: subprocess.CompletedProcess[str]
    project: Path
    events: list[dict[str, Any]]

    def payload(self, name: str, phase: str = "call") -> dict[str, Any]:
        """That of the one event of a test and phase."""
        [found] = [
            event["payload"]
            for event in self.events
            if event["payload"]["nodeid"].endswith(name) and event["payload"]["phase"] == phase
        ]
        return dict(found)


@pytest.fixture(scope="module", params=[(), ("-p", "xdist", "-n", "2")], ids=["alone", "xdist"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run of everything."""
    home = tmp_path_factory.mktemp("home")
    project = home / "app/lib"
    (home / "app/.git").mkdir(parents=True)
    project.mkdir()
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "test_kinds.py").write_text(TESTS)
    (project / "test_double.txt").write_text("Twice one:\n\n>>> 2 * 1\n3\n")
    (project / "test_halve.txt").write_text(">>> 1 / 0\n")
    (project / "test_broken.py").write_text("import os\nimport nothing_like_this\n")
    options = ("--continue-on-collection-errors", *request.param)
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        done = run_pytest(project, *options, env={"OPSMESH_SESSION": "refactor"})
    return Ran(done, project, spooled(home))


def test_what_pytest_counts_is_told(ran: Ran) -> None:
    """Each failure is told once; of a test with parts, the part that failed, not the sum; and
    nothing of the tests that a test runs."""
    assert sorted((e["payload"]["nodeid"], e["payload"]["phase"]) for e in ran.events) == [
        ("test_broken.py", "collect"),
        ("test_double.txt::test_double.txt", "call"),
        ("test_halve.txt::test_halve.txt", "call"),
        ("test_kinds.py::test_both", "call"),
        ("test_kinds.py::test_both", "teardown"),
        ("test_kinds.py::test_parts", "call"),
    ], ran.done.stdout
    # under xdist pytest gives the number as '1'
    assert ran.payload("test_parts")["subtest"].replace("'", "") == "[of it] (number=1)"


def test_a_file_that_cannot_be_imported_says_where(ran: Ran) -> None:
    """The place is the line of the import, and the message the exception's."""
    broken = ran.payload("test_broken.py", "collect")
    assert broken["message"] == "ModuleNotFoundError: No module named 'nothing_like_this'"
    assert (broken["path"], broken["lineno"]) == (str(ran.project / "test_broken.py"), 2)


def test_a_doctest_says_what_was_expected(ran: Ran) -> None:
    """The message is what a person looks for, and the line that of the example."""
    double, halve = ran.payload("test_double.txt"), ran.payload("test_halve.txt")
    assert double["message"] == "Expected:\n3\nGot:\n2"
    assert (double["path"], double["lineno"]) == (str(ran.project / "test_double.txt"), 3)
    assert halve["message"].startswith("ZeroDivisionError")
    assert (halve["path"], halve["lineno"]) == (str(ran.project / "test_halve.txt"), 1)


def test_events_of_pytest_have_session_and_workspace(ran: Ran) -> None:
    """The session is that of the environment, the workspace the repository, `rootdir` pytest's."""
    told = {(e["session_id"], e["workspace"], e["payload"]["rootdir"]) for e in ran.events}
    assert told == {("refactor", str(ran.project.parent), str(ran.project))}
