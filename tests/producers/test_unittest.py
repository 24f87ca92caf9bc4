"""unittest below `opsmesh exec`: real runs, in a project that has nothing of opsmesh."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import private_folders
from tests.producers.agent import spooled
from tests.producers.test_exec import words

from opsmesh.schemas import envelope, registry

CASES = '''
import doctest
import unittest

class Cart(unittest.TestCase):
    def test_good(self):
        pass
    def test_bad(self):
        self.assertEqual(41, 42)
    def test_error(self):
        raise RuntimeError("no database")
    def test_parts(self):
        for number in range(3):
            with self.subTest("of it", number=number):
                self.assertNotEqual(number, 1)
    @unittest.skip("not today")
    def test_skipped(self):
        self.fail()
    @unittest.expectedFailure
    def test_expected(self):
        self.fail()
    @unittest.expectedFailure
    def test_unexpected(self):
        pass

class SetUp(unittest.TestCase):
    def setUp(self):
        raise OSError("in setUp")
    def test_it(self):
        pass

class TearDown(unittest.TestCase):
    def tearDown(self):
        raise OSError("in tearDown")
    def test_it(self):
        pass

class Cleanup(unittest.TestCase):
    def test_it(self):
        self.addCleanup(lambda: 1 / 0)

class Whole(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise ValueError("for all")
    def test_it(self):
        pass

class Async(unittest.IsolatedAsyncioTestCase):
    async def test_it(self):
        self.fail("later")

class Runner(unittest.TestCase):
    def test_runs_others(self):
        class Inner(unittest.TestCase):
            def test_meant(self):
                self.fail("meant")
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(Inner).run(result)
        self.assertEqual(len(result.failures), 1)

def double(number):
    """
    >>> double(1)
    3
    """
    return 2 * number

def load_tests(loader, tests, pattern):
    tests.addTests(doctest.DocTestSuite(__name__))
    return tests
'''


@dataclass(frozen=True)
class Ran:
    """A run, and what it told."""

    done: subprocess.CompletedProcess[str]
    alone: subprocess.CompletedProcess[str]
    project: Path
    events: list[dict[str, Any]]

    def told(self, name: str) -> dict[str, Any]:
        """The one event of a test."""
        [event] = [one for one in self.events if one["payload"]["nodeid"].endswith(name)]
        return event


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One run of unittest with and without exec, in a folder of a repository, with no mesh."""
    home = tmp_path_factory.mktemp("home")
    project = home / "app/lib"
    (home / "app/.git").mkdir(parents=True)
    (project / "tests").mkdir(parents=True)
    (project / "tests/__init__.py").touch()
    (project / "tests/test_cart.py").write_text(CASES)
    (project / "tests/test_broken.py").write_text("import nothing_like_this\n")
    argv = [sys.executable, "-m", "unittest", "-v"]
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        env.delenv("PYTHONPATH", raising=False)
        env.setenv("OPSMESH_SESSION", "refactor")
        alone, done = (
            subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
            for command in (argv, words(argv, watch_pytest=True))
        )
    told = [event for event in spooled(home) if event["source"] == "unittest"]
    return Ran(done, alone, project, told)


def test_each_failure_of_unittest_is_an_event(ran: Ran) -> None:
    """Every failure is told once with its phase; what passes, is skipped or meant is not."""
    assert sorted((e["payload"]["nodeid"], e["payload"]["phase"]) for e in ran.events) == [
        ("tests.test_broken", "collect"),
        ("tests.test_cart.Async.test_it", "call"),
        ("tests.test_cart.Cart.test_bad", "call"),
        ("tests.test_cart.Cart.test_error", "call"),
        ("tests.test_cart.Cart.test_parts", "call"),
        ("tests.test_cart.Cart.test_unexpected", "call"),
        ("tests.test_cart.Cleanup.test_it", "teardown"),
        ("tests.test_cart.SetUp.test_it", "setup"),
        ("tests.test_cart.TearDown.test_it", "teardown"),
        ("tests.test_cart.Whole", "setup"),
        ("tests.test_cart.double", "call"),
    ]


def test_unittest_says_what_it_says_by_itself(ran: Ran) -> None:
    """Output and exit code are those of a run without exec, but for the time that it took."""
    said = [re.sub(r"in [0-9.]+s", "", done.stderr) for done in (ran.done, ran.alone)]
    assert said[0] == said[1]
    assert ran.done.stdout == ran.alone.stdout
    assert ran.done.returncode == ran.alone.returncode == 1


def test_an_event_of_unittest_says_where_and_why(ran: Ran) -> None:
    """Message, file and line are those of the exception, in the test or the import."""
    file = ran.project / "tests/test_cart.py"
    bad = ran.told("Cart.test_bad")["payload"]
    assert bad["message"] == "AssertionError: 41 != 42"
    assert (bad["path"], bad["lineno"]) == (str(file), line_of("assertEqual(41"))
    assert "assertEqual(41, 42)" in bad["longrepr"]
    broken = ran.told("test_broken")["payload"]
    assert broken["message"] == "ModuleNotFoundError: No module named 'nothing_like_this'"
    assert (broken["path"], broken["lineno"]) == (str(file.with_name("test_broken.py")), 1)
    doctest = ran.told("double")["payload"]
    assert (doctest["path"], doctest["lineno"]) == (str(file), line_of("def double") + 1)
    assert ran.told("test_parts")["payload"]["subtest"] == "[of it] (number=1)"


def line_of(text: str) -> int:
    return 1 + next(n for n, line in enumerate(CASES.splitlines()) if text in line)


def test_events_of_unittest_are_valid_and_numbered(ran: Ran) -> None:
    """Each is a valid envelope of its topic, with one session, workspace and run, in order."""
    topics = registry.load_registry(None)
    for event in ran.events:
        defaults = {"severity": "error", "host": "laptop"}
        bare = {name: value for name, value in event.items() if name != "_reply"}
        _, whole = envelope.complete(bare, defaults=defaults, now_us=0)
        topics.check(whole.topic, whole.payload)
    assert [event["seq"] for event in ran.events] == list(range(1, len(ran.events) + 1))
    assert len({(e["run_id"], e["correlation_id"], e["boot_id"]) for e in ran.events}) == 1
    assert {(e["session_id"], e["workspace"]) for e in ran.events} == {
        ("refactor", str(ran.project.parent))
    }
    assert ran.told("test_bad")["component"] == "tests/test_cart.py"
    assert ran.told("test_bad")["payload"]["rootdir"] == str(ran.project)


def test_a_unittest_that_vanishes_is_told_with_its_test(home: Path, tmp_path: Path) -> None:
    """os._exit(0) in a test looks like success to all but exec."""
    (tmp_path / "test_it.py").write_text(
        "import os, unittest\nclass It(unittest.TestCase):\n    def test_gone(self): os._exit(0)\n"
    )
    argv = words([sys.executable, "-m", "unittest"], watch_pytest=True)
    assert subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    [event] = spooled(home)
    assert (event["topic"], event["component"]) == ("python.test.failed", "unittest")
    assert event["payload"]["nodeid"] == "test_it.It.test_gone"
    assert event["payload"]["phase"] == "crash"
    registry.load_registry(None).check(event["topic"], event["payload"])


@pytest.mark.parametrize("theirs", [True, False])
def test_another_sitecustomize_runs_as_ever(home: Path, tmp_path: Path, theirs: bool) -> None:
    """The user's own `sitecustomize` runs under its name; with none, there is none."""
    lib = tmp_path / "lib"
    lib.mkdir()
    if theirs:
        (lib / "sitecustomize.py").write_text("MINE = __name__\n")
    bare = [sys.executable, "-c", "import os; print(os.environ['PYTHONPATH'])"]
    ours = _output(words(bare, watch_pytest=True)).rpartition(":")[2]
    asked = "import sys; print(getattr(sys.modules.get('sitecustomize'), 'MINE', None), sys.path)"
    # ours first, as it is before those of the interpreter
    said = _output([sys.executable, "-c", asked], PYTHONPATH=f"{ours}:{lib}")
    assert said.startswith("sitecustomize " if theirs else "None ")
    assert f"'{ours}', '{lib}'" in said


def _output(argv: list[str], **more: str) -> str:
    done = subprocess.run(
        argv, env={**os.environ, **more}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.strip()
