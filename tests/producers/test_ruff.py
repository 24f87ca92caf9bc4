"""`opsmesh check lint` and the producer `ruff`, on the real ruff."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, spooled, until
from tests.producers.process import producing
from tests.producers.strokes import put
from typer.testing import CliRunner, Result

from opsmesh.cli.main import app
from opsmesh.producers import environments, folders, troubles
from opsmesh.producers.errors import OptionError
from opsmesh.producers.notices import Notices
from opsmesh.producers.ruff import Ruff, findings, telling, tree
from opsmesh.schemas.registry import load_registry

CLEAN = "print(1)\n"
UNUSED = "import os\n"
Event = dict[str, Any]


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one clean module, in a home of its own; we are in it."""
    monkeypatch.setenv("HOME", str(home))
    folder = home / "app"
    (folder / "src").mkdir(parents=True)
    (folder / "src/cart.py").write_text(CLEAN)
    (folder / "pyproject.toml").write_text('[tool.ruff.lint]\nselect = ["F"]\n')
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    monkeypatch.chdir(folder)
    return folder


def check(*words: str) -> Result:
    """`opsmesh check lint`, in this process."""
    return CliRunner().invoke(app, ["check", "lint", *words])


def ruff_itself(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", "check", "--output-format", "concise", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_findings_are_shown_as_ruff_does_and_told(project: Path, agent: StandInAgent) -> None:
    """Lines and exit code are those of ruff's concise format; the event has counts, rules, files
    and the first finding, and the project as its workspace."""
    (project / "src/cart.py").write_text(UNUSED + "def total():\n    x = 1\n")
    (project / "src/shop.py").write_text("x = (\n")
    done, own = check("src"), ruff_itself("src")
    assert done.exit_code == own.returncode == 1
    assert done.stdout.splitlines()[:4] == own.stdout.splitlines()[:4]
    [event] = agent.events
    assert (event["topic"], event["source"]) == ("python.lint.failed", "ruff")
    assert (event["workspace"], event["exit_code"]) == (str(project), 1)
    assert event["payload"] == {
        "tool": "ruff",
        "count": 3,
        "path": str(project / "src/cart.py"),
        "line": 1,
        "column": 8,
        "code": "F401",
        "message": "`os` imported but unused",
        "codes": {"F401": 1, "F841": 1, "invalid-syntax": 1},
        "paths": [str(project / "src/cart.py"), str(project / "src/shop.py")],
        "folder": str(project / "src"),
        "fixable": 1,
    }
    load_registry().check(event["topic"], event["payload"])


def test_nothing_found_is_no_event(project: Path, agent: StandInAgent) -> None:
    """A clean project says so, ends with 0, and tells nothing."""
    done = check()
    assert (done.exit_code, done.stdout) == (0, "All checks passed!\n")
    assert agent.events == []


def test_bad_configuration_is_no_finding(project: Path, agent: StandInAgent) -> None:
    """A configuration that ruff refuses ends with 2 and ruff's own words, and is no event."""
    (project / "src/cart.py").write_text(UNUSED)
    (project / "ruff.toml").write_text("bogus = 1\n")
    done = check("--json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "unknown field `bogus`" in done.stderr
    assert "says nothing about the code" in done.stderr
    assert agent.events == []


@pytest.mark.parametrize(
    ("words", "said"), [(("nowhere",), "is not there"), (("--tool", "pylint"), "none of ruff")]
)
def test_a_wrong_call_is_no_finding(
    project: Path, agent: StandInAgent, words: Sequence[str], said: str
) -> None:
    """A path that is not there (ruff calls it a finding) and an unknown linter are wrong calls."""
    done = check(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert agent.events == []


def test_json(project: Path, agent: StandInAgent) -> None:
    """--json gives every finding, and the id of the event."""
    (project / "src/cart.py").write_text(UNUSED)
    made = json.loads(check("--json").stdout)
    assert made["count"] == 1
    assert made["findings"][0]["code"] == "F401"
    assert made["event"] == agent.events[0]["id"]


def test_an_event_of_the_run_that_asks(
    project: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called by a profile's step, the event has its cause and its hops, so that loops end; it is of
    the session that it is called in."""
    (project / "src/cart.py").write_text(UNUSED)
    monkeypatch.setenv("OPSMESH_EVENT_ID", "01a20af3-5d52-7e10-ae32-25df3fd288da")
    monkeypatch.setenv("OPSMESH_HOPS", "3")
    monkeypatch.setenv("OPSMESH_SESSION", "mine")
    check()
    [event] = agent.events
    assert event["session_id"] == "mine"
    assert (event["causation_id"], event["hops"]) == ("01a20af3-5d52-7e10-ae32-25df3fd288da", 3)


def test_the_projects_own_ruff_comes_first(
    project: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The .venv of the project is asked before PATH; no ruff anywhere is said, with exit code 3."""
    own = project / ".venv/bin/ruff"
    own.parent.mkdir(parents=True)
    (project / ".venv/pyvenv.cfg").touch()
    own.write_text("#!/bin/sh\necho '[]'\n")
    own.chmod(0o755)
    assert environments.program("ruff", project / "src") == own
    (project / "src/cart.py").write_text(UNUSED)
    assert check().exit_code == 0
    own.unlink()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert environments.program("ruff", project / "src", {"PATH": "/nowhere"}) is None
    assert Ruff(path=str(project)).available() == (
        f"no ruff: not in a .venv of {project}, not in PATH"
    )


def test_with_no_agent_the_event_is_in_the_spool(project: Path, home: Path) -> None:
    """With the mesh down a finding is kept, and the exit code is ruff's."""
    (project / "src/cart.py").write_text(UNUSED)
    assert check().exit_code == 1
    assert [event["topic"] for event in spooled(home)] == ["python.lint.failed"]


def finding(message: str, *, filename: str = "a.py", row: int = 1) -> findings.Finding:
    return findings.Finding(
        filename=filename, message=message, code="F401", location=findings.Place(row, 1)
    )


def test_a_finding_that_moves_is_no_news() -> None:
    """What is new is told with the new one first; a moved line, and one of several mended, is not;
    the last one mended is."""
    old = findings.Findings([finding("a"), finding("b")])
    path = Path("/nowhere")
    moved = findings.Findings([finding("a", row=9), finding("b", row=10)])
    assert telling.news(old.keys(), moved, path) is None
    assert telling.news(old.keys(), findings.Findings([finding("b")]), path) is None
    more = telling.news(old.keys(), findings.Findings([*old.found, finding("c")]), path)
    assert more is not None
    assert (more.payload["message"], more.payload["new"], more.payload["count"]) == ("c", 1, 3)
    twice = telling.news(old.keys(), findings.Findings([*old.found, finding("a")]), path)
    assert twice is not None
    assert twice.payload["new"] == 1
    gone = telling.news(old.keys(), findings.Findings(), path)
    assert gone is not None
    assert (gone.topic, gone.payload["mended"]) == ("python.lint.passed", 2)
    load_registry().check(gone.topic, dict(gone.payload))
    assert telling.news(None, findings.Findings(), path) is None


def test_an_event_of_very_many_findings_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 findings in as many files are one event below 64 kB, with the whole count."""
    many = findings.Findings(
        [finding("x" * 600, filename=f"/home/dev/app/{n}.py") for n in range(10_000)]
    )
    payload = many.payload(folder="/home/dev/app", new=many.new({}))
    assert payload["count"] == 10_000
    assert len(json.dumps(payload)) < 65536
    monkeypatch.setattr(findings, "MOST_BYTES", 1)
    with pytest.raises(ValueError, match="longer than"):
        findings.decode(b"[]")


def topics(events: Sequence[Event]) -> list[str]:
    return [event["topic"].rpartition(".")[2] for event in events]


def test_the_producer_tells_each_change_once(
    project: Path, home: Path, agent: StandInAgent
) -> None:
    """Saved findings are told, the same ones never again (a restart included), a new one is, and
    that all are gone; a folder that is new, and a file that replaces another, are seen."""
    log, cart, options = home / "ruff.log", project / "src/cart.py", f"path={project}"
    with producing("ruff", options, log=log):
        until(lambda: (home / "state/opsmesh/producers/ruff/memory.json").exists())
        cart.write_text(UNUSED)
        agent.wait_for(lambda events: len(events) == 1)
        put(cart, "# a line\n" + UNUSED)  # an empty file would have no finding
        (project / "lib/deep").mkdir(parents=True)
        (project / "lib/deep/new.py").write_text("import sys\n")
        agent.wait_for(lambda events: len(events) == 2)
    with producing("ruff", options, log=log):
        other = project / "src/.cart.tmp"
        other.write_text(CLEAN)
        other.replace(cart)
        shutil.rmtree(project / "lib")
        told = agent.wait_for(lambda events: topics(events)[-1:] == ["passed"])
    # one that was under way when its producer was stopped comes again, with its id
    events = list({event["id"]: event for event in told}.values())
    assert topics(events) == ["failed", "failed", "passed"]
    second = events[1]["payload"]
    assert (second["count"], second["new"], second["code"]) == (2, 1, "F401")
    assert second["path"] == str(project / "lib/deep/new.py")
    assert events[2]["payload"]["mended"] == 2
    assert {event["workspace"] for event in events} == {str(project)}
    assert not (project / ".ruff_cache").exists()


def test_the_producer_outlives_a_ruff_that_goes(
    project: Path, home: Path, agent: StandInAgent
) -> None:
    """Without its ruff, and with a bad configuration, nothing is told as clean, and `doctor` has
    something to say; afterwards only what is new is told."""
    log, cart = home / "ruff.log", project / "src/cart.py"
    own = project / ".venv/bin/ruff"
    own.parent.mkdir(parents=True)
    (project / ".venv/pyvenv.cfg").touch()
    real = str(environments.program("ruff", home))
    own.symlink_to(real)
    cart.write_text(UNUSED)
    with producing("ruff", f"path={project}", log=log):
        agent.wait_for(lambda events: len(events) == 1)
        own.unlink()
        own.write_text("#!/nowhere\n")
        own.chmod(0o755)
        cart.write_text(CLEAN)
        until(lambda: "does not mean clean" in log.read_text())
        own.unlink()
        own.symlink_to(real)
        (project / "ruff.toml").write_text("bogus = 1\n")
        until(lambda: "unknown field `bogus`" in log.read_text())
        until(lambda: "unknown field `bogus`" in troubles.read("ruff").get(str(project), ""))
        (project / "ruff.toml").unlink()
        events = agent.wait_for(lambda events: len(events) == 2)
        until(lambda: troubles.read("ruff") == {})
    assert topics(events) == ["failed", "passed"]


def test_with_the_mesh_down_changes_arrive_later_in_order(project: Path, home: Path) -> None:
    """What the producer finds without an agent lies in the spool, in order."""
    log, cart = home / "ruff.log", project / "src/cart.py"
    with producing("ruff", f"path={project}", log=log):
        for number, text in enumerate((UNUSED, CLEAN, UNUSED + "import sys\n")):
            cart.write_text(text)
            until(lambda: len(spooled(home)) > number)  # noqa: B023 (called at once)
    assert topics(spooled(home)) == ["failed", "passed", "failed"]


def test_what_is_watched(project: Path) -> None:
    """Environments, caches and what git ignores are not watched; a new folder and code are."""
    for name in (".venv/lib/python3/site-packages/x", "node_modules/y", "out/z", "pkg/__pycache__"):
        (project / name).mkdir(parents=True)
    (project / ".gitignore").write_text("out/\ndata.py\n")
    (project / "out/z/junk.py").touch()
    assert sorted(os.path.relpath(one, project) for one in tree._folders(project)) == [
        ".",
        "pkg",
        "src",
    ]
    notices = Notices(tree.matters)
    tree.arm(notices, "app", project)
    (project / "README.md").write_text("no code")
    (project / ".venv/bin").mkdir()
    (project / "src/__pycache__").mkdir()
    (project / "out/z/more.py").touch()
    assert notices.wait(0.05) == {}
    (project / "pkg/code.py").touch()
    assert notices.wait(60)
    (project / "pkg/inner").mkdir()
    assert notices.wait(60)
    notices.close()


def test_configuration_above_the_watched_folder_counts(project: Path) -> None:
    """The repository's pyproject.toml changes what is found in its src."""
    notices = Notices(tree.matters)
    tree.arm(notices, "src", project / "src")
    (project / "README.md").touch()
    assert notices.wait(0.05) == {}
    os.utime(project / "pyproject.toml")
    assert notices.wait(60)
    notices.close()


def test_too_many_folders_are_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is more than a project is refused with what to do."""
    monkeypatch.setattr(tree, "MOST", 1)
    notices = Notices(tree.matters)
    with pytest.raises(tree.TooMany, match="name smaller ones"):
        tree.arm(notices, "app", project)
    notices.close()
    done = check("--watch")
    assert (done.exit_code, "name smaller ones" in done.stderr) == (2, True)


def test_options() -> None:
    """No folder: it says which setting; a relative one, and a time without unit, are errors."""
    assert "producers.options.ruff.path" in str(Ruff().available())
    assert folders.chosen("~/a, /b,/b") == [Path.home() / "a", Path("/b")]
    for wrong in ({"path": "work"}, {"settle": "5"}):
        with pytest.raises(OptionError):
            Ruff(**wrong)


@pytest.fixture
def watching(project: Path) -> Iterator[subprocess.Popen[str]]:
    """`opsmesh check lint --watch --json`, once it watches."""
    command = [sys.executable, "-P", "-m", "opsmesh.cli.entry", "check", "lint", "--watch"]
    process = subprocess.Popen(
        [*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    yield process
    process.kill()
    process.communicate()


def test_watch(project: Path, agent: StandInAgent, watching: subprocess.Popen[str]) -> None:
    """Each look that differs is a line, with the event that it was; Ctrl-C ends it with 0."""
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert (first["count"], first["event"]) == (0, None)
    (project / "src/cart.py").write_text(UNUSED)
    second = json.loads(watching.stdout.readline())
    assert (second["count"], second["event"]) == (1, agent.events[0]["id"])
    (project / "src/cart.py").write_text(CLEAN)
    assert json.loads(watching.stdout.readline())["count"] == 0
    watching.send_signal(signal.SIGINT)
    assert watching.wait(60) == 0
    assert topics(agent.events) == ["failed", "passed"]
