"""The suites of public packages with a fault put in, in environments with nothing of opsmesh: what
is told is, event by event, what pytest's own report log holds. Packages are fetched once."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.producers import foreign
from tests.producers.agent import spooled, standing_in
from tests.producers.test_exec import words

from opsmesh.schemas import times

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("foreign")]

#: pytest, what writes its report log, and what else these tests are about.
TOOLS = ("pytest", "pytest-reportlog", "pytest-xdist", "pytest-rerunfailures")


@dataclass(frozen=True)
class Project:
    """A public package, a fault for it, and the part of its suite that is run."""

    requirement: str
    faults: Sequence[tuple[str, str, str]]
    arguments: Sequence[str]
    path: str = "src"


PROJECTS = [
    Project(
        "click==8.3.1",
        (
            ("src/click/formatting.py", "text.expandtabs()", "text.replace('e', 'E')"),
            # a fixture that fails, for a phase that is no call
            (
                "tests/conftest.py",
                "return CliRunner()",
                "yield CliRunner()\n    assert request.node.name != 'test_args_and_chain'",
            ),
        ),
        (
            "-Wignore::pytest.PytestRemovedIn10Warning",
            *("tests/test_formatting.py", "tests/test_commands.py", "tests/test_chain.py"),
        ),
    ),
    # its test_timed.py wants a package that is not there: a collection error
    Project(
        "itsdangerous==2.2.0",
        (("src/itsdangerous/encoding.py", 'rstrip(b"=")', 'rstrip(b"=A")'),),
        ("--continue-on-collection-errors", "tests"),
    ),
    # unittest's classes and subtests; one test of it alone takes half a minute
    Project(
        "more-itertools==10.8.0",
        (
            ("more_itertools/recipes.py", "islice(iterable, n))\n", "islice(iterable, n + 1))\n"),
            ("more_itertools/recipes.py", "return poly\n", "return poly[:3]\n"),
        ),
        ("tests/test_recipes.py", "-k", "not test_primes and not test_large"),
        path=".",
    ),
]


@pytest.fixture(params=PROJECTS, ids=[one.requirement.partition("==")[0] for one in PROJECTS])
def project(request: pytest.FixtureRequest) -> Project:
    """Each package in turn."""
    found: Project = request.param
    return found


def execute(project: Path, argv: Sequence[str], path: str) -> subprocess.CompletedProcess[str]:
    """`opsmesh exec` in the project's folder, with what it says of itself as PYTHONPATH."""
    return subprocess.run(
        words(argv, watch_pytest=True),
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def told(home: Path) -> list[tuple[Any, ...]]:
    """What each event says, and by which event of pytest it must be: in the order of the run."""
    events = [event for event in spooled(home) if event["topic"] == "python.test.failed"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    names = ("nodeid", "phase", "message", "path", "lineno")
    return [tuple(event["payload"].get(name) for name in names) for event in events]


def logged(log: Path, project: Path) -> Iterator[tuple[Any, ...]]:
    """The failures in pytest's report log, as the events should say them."""
    for line in log.read_text().splitlines():
        report = json.loads(line)
        if report.get("outcome") != "failed":
            continue
        longrepr = report["longrepr"]
        phase = report.get("when") or "collect"
        if crash := isinstance(longrepr, dict) and longrepr.get("reprcrash"):
            where = (crash["message"][:2000], crash["path"], crash["lineno"])
            yield (report["nodeid"], phase, *where)
        elif phase == "collect":
            text = longrepr if isinstance(longrepr, str) else longrepr["longrepr"]
            [message] = re.findall(r"^E   (\S.*)$", text, re.MULTILINE)
            path, number = re.findall(r"^(\S+\.py):(\d+): ", text, re.MULTILINE)[-1]
            yield (report["nodeid"], phase, message, str(project / path), int(number))
        else:
            assert re.fullmatch(r"contains \d+ failed subtests?", longrepr), longrepr


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_events_are_what_pytest_reports(
    home: Path, tmp_path: Path, project: Project, more: tuple[str, ...]
) -> None:
    """Name, phase, message, file and line of each failure are those of pytest's report log, and
    nothing else is told."""
    python = foreign.environment("pytest", *TOOLS)
    source = foreign.sdist(project.requirement)
    there = foreign.with_faults(source, tmp_path / "theirs", *project.faults)
    log = tmp_path / "log"
    command = [str(python), "-m", "pytest", "-q", f"--report-log={log}", *project.arguments, *more]
    done = execute(there, command, project.path)
    assert done.returncode == 1, done.stdout + done.stderr
    expected = list(logged(log, there))
    assert len(expected) >= 3, done.stdout
    found = told(home)
    if more:  # two processes: no order
        expected, found = sorted(expected), sorted(found)
    assert found == expected


def test_events_are_what_unittest_reports(home: Path, tmp_path: Path) -> None:
    """Name and last line of each failure are those that unittest prints, and nothing else is told;
    output and exit code are as without exec."""
    python = foreign.environment("bare")
    fault = ("idna/core.py", "if len(label) > 63:", "if len(label) > 13:")
    there = foreign.with_faults(foreign.sdist("idna==3.11"), tmp_path / "theirs", fault)
    command = [str(python), "-m", "unittest", "tests.test_idna", "tests.test_idna_codec"]
    alone = subprocess.run(command, cwd=there, capture_output=True, text=True, check=False)
    done = execute(there, command, "")
    assert done.returncode == alone.returncode == 1
    same = [re.sub(r"in [0-9.]+s", "", one.stderr) for one in (done, alone)]
    assert same[0] == same[1]
    printed = re.findall(r"^(?:FAIL|ERROR): \w+ \((\S+)\)$", done.stderr, re.MULTILINE)
    found = told(home)
    assert len(printed) >= 3
    assert sorted(nodeid for nodeid, *_ in found) == sorted(printed)
    for _, _, message, path, number in found:
        assert f'File "{path}", line {number}, in ' in done.stderr
        assert f"\n{message}\n" in done.stderr


def test_django_tells_of_its_parallel_tests(home: Path, tmp_path: Path) -> None:
    """`manage.py test --parallel`, whose tests run in processes of their own, tells each once."""
    python = foreign.environment("django", "django>=5.2,<6", "tblib")
    admin = [str(python), "-m", "django", "startproject", "site1", "."]
    subprocess.run(admin, cwd=tmp_path, check=True)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/tests.py").write_text(
        "from django.test import SimpleTestCase, TestCase\n"
        "class One(SimpleTestCase):\n"
        "    def test_bad(self): self.assertEqual(1, 2)\n"
        "    def test_good(self): pass\n"
        "class Two(TestCase):\n"
        "    def test_view(self): self.assertContains(self.client.get('/nothing/'), 'x')\n"
    )
    for more in ((), ("--parallel", "2")):
        execute(tmp_path, [str(python), "manage.py", "test", *more], "")
    names = [event["payload"]["nodeid"] for event in spooled(home) if event["source"] == "unittest"]
    assert sorted(names) == sorted(2 * ["shop.tests.One.test_bad", "shop.tests.Two.test_view"])


FLAKY = """
import pathlib

def test_flaky():
    mark = pathlib.Path("ran")
    first = not mark.exists()
    mark.touch()
    assert not first

def test_bad():
    assert 0
"""


@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_what_passes_when_run_again_has_not_failed(
    home: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """With pytest-rerunfailures only what fails to the end is told, once."""
    (tmp_path / "test_it.py").write_text(FLAKY)
    python = foreign.environment("pytest", *TOOLS)
    done = execute(tmp_path, [str(python), "-m", "pytest", "-q", "--reruns", "2", *more], "")
    assert "1 failed, 1 passed, 3 rerun" in done.stdout
    assert [nodeid for nodeid, *_ in told(home)] == ["test_it.py::test_bad"]


@pytest.mark.parametrize(
    ("versions", "tools"),
    [
        (("3.9",), ("pytest==6.2.5",)),
        (("3.9",), ("pytest==7.4.4", "pytest-subtests==0.11.0")),
        (("3.10", "3.11"), ("pytest==8.4.2", "pytest-subtests", "pytest-xdist")),
        (("3.13", "3.14"), ("pytest", "pytest-xdist")),
    ],
    ids=lambda value: "-".join(value).replace("==", "-"),
)
def test_older_and_newer_ones_tell_as_well(
    home: Path, tmp_path: Path, versions: tuple[str, ...], tools: tuple[str, ...]
) -> None:
    """The plug-in works in what people have, under xdist and with plugins for subtests, too."""
    python = foreign.other_python(*versions)
    name = "-".join((versions[0], *tools)).replace("==", "-")
    there = foreign.environment(name, *tools, python=python)
    parts = "def test_parts(subtests):\n    with subtests.test('of it'): assert 0\n"
    has_parts = "pytest-subtests" in name or tools[0] == "pytest"
    (tmp_path / "test_it.py").write_text(
        "def test_bad(): assert 1 == 2\n" + (parts if has_parts else "")
    )
    (tmp_path / "test_broken.py").write_text("import nothing_like_this\n")
    options = ["--continue-on-collection-errors", *(["-n", "2"] if "xdist" in name else [])]
    done = execute(tmp_path, [str(there), "-m", "pytest", *options], "")
    assert done.returncode == 1, done.stdout + done.stderr
    file = str(tmp_path / "test_it.py")
    assert set(told(home)) == {
        ("test_it.py::test_bad", "call", "assert 1 == 2", file, 1),
        *([("test_it.py::test_parts", "call", "assert 0", file, 3)] * has_parts),
        (
            *("test_broken.py", "collect"),
            "ModuleNotFoundError: No module named 'nothing_like_this'",
            *(str(tmp_path / "test_broken.py"), 1),
        ),
    }


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8"])
def test_a_python_that_is_too_old_runs_as_ever(home: Path, tmp_path: Path, version: str) -> None:
    """unittest in a Python that cannot read the plug-in says what it says without it."""
    python = foreign.other_python(version, environments=False)
    (tmp_path / "test_it.py").write_text(
        "import unittest\nclass It(unittest.TestCase):\n"
        "    def test_bad(self): self.assertEqual(1, 2)\n"
    )
    command = [python, "-m", "unittest", "test_it"]
    done = execute(tmp_path, command, "")
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    same = [re.sub(r"in [0-9.]+s", "", one.stderr) for one in (done, alone)]
    assert same[0] == same[1]
    assert done.returncode == 1
    assert told(home) == []


def test_a_pytest_that_is_too_old_runs_as_ever(home: Path, tmp_path: Path) -> None:
    """pytest finds the plug-in's metadata in Python 3.8, loads it, and is left alone by it."""
    python = foreign.environment("3.8-pytest", "pytest", python=foreign.other_python("3.8"))
    (tmp_path / "test_it.py").write_text("def test_bad(): assert 1 == 2\n")
    done = execute(tmp_path, [str(python), "-m", "pytest", "-q"], "")
    assert (done.returncode, done.stderr) == (1, "")
    assert "1 failed" in done.stdout
    assert told(home) == []


CLOCKS = """
import time
import unittest

import freezegun
import pytest
import time_machine

class Fake(unittest.TestCase):
    @freezegun.freeze_time("2012-01-14")
    def test_decorated(self):
        assert time.time() > 2e9

@pytest.fixture
def stopped():
    with freezegun.freeze_time("2012-01-14"):
        yield

def test_stopped(stopped):
    assert time.time() > 2e9

def test_travelled(time_machine):
    time_machine.move_to("2040-01-01")
    assert time.time() < 2e9

def test_never_started_again():
    freezegun.freeze_time("2012-01-14").start()
    assert time.time() > 2e9
"""


def test_a_stopped_clock_is_not_that_of_events(home: Path, tmp_path: Path) -> None:
    """Events of tests under freezegun and time-machine have the time at which they were made, and
    are in the spool in their order; an agent that hangs holds up nobody for ever."""
    python = foreign.environment("clocks", "pytest", "freezegun", "time-machine")
    (tmp_path / "test_it.py").write_text(CLOCKS)
    before = times.now_us()
    with standing_in(home, hang=True):
        done = execute(tmp_path, [str(python), "-m", "pytest", "-q"], "")
    assert done.returncode == 1, done.stderr
    events = [event for event in spooled(home) if event["source"] == "pytest"]
    assert [event["payload"]["nodeid"].rpartition("::")[2] for event in events] == [
        *("test_decorated", "test_stopped", "test_travelled", "test_never_started_again"),
    ]
    made = [times.parse_us(event["ts_utc"]) for event in events]
    a_tick = 10_000
    assert before - a_tick <= made[0]
    assert made == sorted(made)
    assert made[-1] <= times.now_us()
