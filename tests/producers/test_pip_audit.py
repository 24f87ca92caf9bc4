"""`opsmesh check deps` and the producer `pip-audit`: the real pip-audit against an OSV of ours."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.producers.agent import StandInAgent, spooled, standing_in, until
from tests.producers.osv import Osv, serving
from tests.producers.process import producing
from tests.producers.strokes import put
from typer.testing import CliRunner, Result

from opsmesh.cli.main import app
from opsmesh.producers import called
from opsmesh.producers.errors import OptionError
from opsmesh.producers.pip_audit import PipAudit, answer, locks, program, project, telling
from opsmesh.producers.pip_audit.answer import Audited, Vulnerability
from opsmesh.producers.pip_audit.locks import Pin
from opsmesh.router.client import Client
from opsmesh.schemas.registry import load_registry

DETECTED, INCOMPLETE = "python.dep.vuln.detected", "python.dep.audit.incomplete"
UV_LOCK = """\
version = 1
[[package]]
name = "app"
version = "0.1.0"
source = { editable = "." }
[[package]]
name = "jinja2"
version = "3.1.2"
source = { registry = "https://pypi.org/simple" }
[[package]]
name = "idna"
version = "3.7"
source = { registry = "https://pypi.org/simple" }
"""
FROM_GIT = """\
[[package]]
name = "fork"
version = "1.0"
source = { git = "https://example.org/fork?rev=1" }
"""
JINJA = {
    "package": "jinja2",
    "version": "3.1.2",
    "vuln_id": "CVE-2024-22195",
    "aliases": ["GHSA-h5c8-rqwp-cp95"],
    "fix_versions": ["3.1.3"],
    "description": "about GHSA-h5c8-rqwp-cp95",
    "requirement": "uv.lock",
}


@pytest.fixture
def osv() -> Iterator[Osv]:
    """An OSV that knows of one advisory about jinja2."""
    with serving() as server:
        server.advise("jinja2", "GHSA-h5c8-rqwp-cp95", alias="CVE-2024-22195", fixed="3.1.3")
        yield server


@pytest.fixture
def app_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with uv's lock file, in a home of its own; pip-audit is the one beside us."""
    if not (beside := Path(sys.executable).with_name("pip-audit")).exists():
        assert not os.environ.get("CI"), "pip-audit is not installed, and must be in CI"
        pytest.skip("pip-audit is not installed: make .venv/.dev")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{beside.parent}:{os.environ['PATH']}")
    folder = home / "app"
    (folder / ".git").mkdir(parents=True)
    (folder / "uv.lock").write_text(UV_LOCK)
    return folder


def check(folder: Path, *options: str) -> Result:
    """`opsmesh check deps`, in this process."""
    return CliRunner().invoke(app, ["check", "deps", str(folder), *options])


def test_by_hand(app_folder: Path, osv: Osv, agent: StandInAgent) -> None:
    """What is vulnerable is shown and told, once; the project itself is not asked about, what is
    from git is unknown, and the exit codes are 1 and 4."""
    (app_folder / "uv.lock").write_text(UV_LOCK + FROM_GIT)
    first = check(app_folder, "--", *osv.options)
    assert first.exit_code == 1, first.output
    assert [line.split()[:4] for line in first.stdout.splitlines()[1:]] == [
        ["jinja2", "3.1.2", "CVE-2024-22195", "3.1.3"]
    ]
    assert "unknown: fork: from a git repository" in first.stderr
    assert "1 of 2 packages vulnerable; 1 unknown, which does not mean clean" in first.stderr
    assert osv.asked == [("idna", "3.7"), ("jinja2", "3.1.2")]
    vulnerable, incomplete = agent.events
    assert (vulnerable["topic"], vulnerable["source"]) == (DETECTED, "pip-audit")
    assert vulnerable["workspace"] == str(app_folder)
    assert vulnerable["payload"] == {**JINJA, "folder": str(app_folder)}
    assert incomplete["topic"] == INCOMPLETE
    assert incomplete["payload"] == {
        "folder": str(app_folder),
        "unknown": {"fork": "from a git repository, not from an index"},
        "count": 1,
        "audited": 2,
    }
    for event in agent.events:
        load_registry().check(event["topic"], event["payload"])
    (app_folder / "uv.lock").write_text(UV_LOCK.replace("3.1.2", "3.1.3") + FROM_GIT)
    mended = check(app_folder, "--json", "--", *osv.options)
    assert (mended.exit_code, json.loads(mended.stdout)["verdict"]) == (4, "unknown")
    assert len(agent.events) == 2


def test_offline_is_not_clean(app_folder: Path, home: Path, agent: StandInAgent) -> None:
    """Without the network nothing is told, the exit code is 4, and pip-audit's reason is shown."""
    done = check(app_folder, "--", "-s", "osv", "--osv-url", "http://127.0.0.1:1/v1/query")
    assert (done.exit_code, done.stdout) == (4, "")
    assert "not audited: pip-audit: " in done.stderr
    # the last line of its own: with the cause, or, when it gave up between two tries, without
    assert "Max retries exceeded" in done.stderr or "ServiceError" in done.stderr
    assert "does not mean that nothing is vulnerable" in done.stderr
    assert agent.events == []


def test_an_agent_that_hangs_is_waited_for_once(
    app_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty vulnerabilities and an agent that says nothing: one time-out, and all in the spool
    (pip-audit is a stand-in)."""
    many = [{"id": f"CVE-{n}"} for n in range(30)]
    answered = {"dependencies": [{"name": "jinja2", "version": "3.1.2", "vulns": many}]}
    stand_in(home, f"echo '{json.dumps(answered)}'", monkeypatch)
    waited: list[float] = []
    ask = Client._ask

    def timed(self: Client, request: bytes) -> bytes | None:
        waited.append(self.timeout)
        return ask(self, request)

    monkeypatch.setattr(Client, "_ask", timed)
    with standing_in(home, hang=True):
        assert check(app_folder).exit_code == 1
    assert len(spooled(home)) == 31  # idna had no answer
    assert waited == [called.ANSWER, *[called.HANGS] * 30]


def test_nothing_to_ask(home: Path, app_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without dependencies, and no pip-audit, end with 3; no folder with 2."""
    (home / "empty").mkdir()
    done = check(home / "empty")
    assert (done.exit_code, "has none of uv.lock" in done.stderr) == (3, True)
    assert check(home / "nowhere").exit_code == 2
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    done = check(app_folder)
    assert (done.exit_code, "pipx install pip-audit" in done.stderr) == (3, True)
    assert "no pip-audit" in str(PipAudit(path=str(app_folder)).available())


def ids(events: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Versions and ids of what was told, each event once."""
    once = {event["id"]: event["payload"] for event in events}.values()
    return [(p["version"], p["vuln_id"], *p.get("fix_versions", ())) for p in once]


@pytest.mark.slow
def test_the_producer(app_folder: Path, osv: Osv, home: Path, agent: StandInAgent) -> None:
    """It tells at its start, when a lock file changes, and what an advisory that is new says; the
    same never again, also after a restart; what was mended and comes back is told again."""
    log, lock = home / "log", app_folder / "uv.lock"
    options = (f"path={app_folder}", "settle=50ms", f"options={' '.join(osv.options)}")
    with producing("pip-audit", *options, log=log):
        agent.wait_for(lambda events: len(ids(events)) == 1)
        lock.write_text(UV_LOCK.replace("3.1.2", "3.1.3"))
        until(lambda: ("jinja2", "3.1.3") in osv.asked)
        lock.write_text(UV_LOCK)
        agent.wait_for(lambda events: len(ids(events)) == 2)
    osv.advise("idna", "PYSEC-2026-1")
    with producing("pip-audit", *options, "every=300ms", log=log):
        agent.wait_for(lambda events: len(ids(events)) == 3)
        osv.advise("idna", "PYSEC-2026-1", fixed="3.8")
        events = agent.wait_for(lambda events: len(ids(events)) == 4)
    assert ids(events) == [
        ("3.1.2", "CVE-2024-22195", "3.1.3"),
        ("3.1.2", "CVE-2024-22195", "3.1.3"),
        ("3.7", "PYSEC-2026-1"),
        ("3.7", "PYSEC-2026-1", "3.8"),
    ]


def stand_in(home: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pip-audit, first in PATH."""
    tool = home / "tools/pip-audit"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")


FOUND: dict[str, list[dict[str, Any]]] = {
    "dependencies": [
        {"name": "jinja2", "version": "3.1.2", "vulns": [{"id": "CVE-2024-22195"}]},
        {"name": "idna", "version": "3.7", "vulns": [{"id": "PYSEC-1"}]},
    ]
}


def test_the_mesh_is_down(app_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no agent the events are in the spool, in order; where even that cannot be, the next call
    tells (pip-audit is a stand-in)."""
    stand_in(home, f"echo '{json.dumps(FOUND)}'; exit 1", monkeypatch)
    state = home / "state/opsmesh"
    state.mkdir()
    (state / "spool").write_text("a file where the folder should be")
    lost = check(app_folder)
    assert (lost.exit_code, "the event was not kept" in lost.stderr) == (1, True)
    (state / "spool").unlink()
    assert check(app_folder).exit_code == 1
    told = [event["payload"]["vuln_id"] for event in spooled(home)]
    assert told == ["CVE-2024-22195", "PYSEC-1"]


def test_all_judged_and_nothing_found_is_clean(
    app_folder: Path, agent: StandInAgent, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 needs an answer for every package (pip-audit is a stand-in)."""
    clean = {"dependencies": [{**one, "vulns": []} for one in FOUND["dependencies"]]}
    stand_in(home, f"echo '{json.dumps(clean)}'; exit 1", monkeypatch)
    assert check(app_folder).exit_code == 0
    stand_in(home, """echo '{"dependencies": []}'""", monkeypatch)
    assert check(app_folder).exit_code == 4
    assert [event["topic"] for event in agent.events] == [INCOMPLETE]


def test_the_producer_tells_a_change(
    app_folder: Path, home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock file that changes is asked about at once, and what that brings is told (pip-audit is
    a stand-in)."""
    clean = {"dependencies": [{**one, "vulns": []} for one in FOUND["dependencies"]]}
    script = (
        f"for list; do :; done; echo asked >> {home}/asked\n"
        f"if grep -q 3.1.2 $list/pylock.toml; then echo '{json.dumps(FOUND)}'; exit 1; fi\n"
        f"echo '{json.dumps(clean).replace('3.1.2', '3.1.3')}'"
    )
    stand_in(home, script, monkeypatch)
    (app_folder / "uv.lock").write_text(UV_LOCK.replace("3.1.2", "3.1.3"))
    with producing("pip-audit", f"path={app_folder}", "settle=50ms", log=home / "log"):
        until((home / "asked").exists)
        put(app_folder / "uv.lock", UV_LOCK)
        events = agent.wait_for(lambda events: len(ids(events)) == 2)
    assert ids(events) == [("3.1.2", "CVE-2024-22195"), ("3.7", "PYSEC-1")]


def test_no_answer_is_told_at_last(
    app_folder: Path, home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pip-audit that breaks (a stand-in) is said in the log, and after two rounds told once."""
    stand_in(home, "echo '{}'; echo broken >&2; exit 1", monkeypatch)
    options = (f"path={app_folder}", "settle=10ms", "every=50ms")
    with producing("pip-audit", *options, log=home / "log"):
        [event] = agent.wait_for(bool)
        assert event["topic"] == INCOMPLETE
        until(lambda: "does not mean clean: pip-audit: broken" in (home / "log").read_text())
    assert event["payload"] == {"folder": str(app_folder), "error": "pip-audit: broken"}
    load_registry().check(event["topic"], event["payload"])


def test_a_pip_audit_that_hangs_ends_with_the_producer(
    app_folder: Path, home: Path, agent: StandInAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The producer ends at once, and so does what it asked (a stand-in)."""
    stand_in(home, f"echo $$ > {home}/pid; exec sleep 1000", monkeypatch)
    with producing("pip-audit", f"path={app_folder}", "settle=10ms", log=home / "log"):
        until(lambda: (home / "pid").exists() and bool((home / "pid").read_text()))
    assert not Path("/proc", (home / "pid").read_text().strip()).exists()


def test_a_command_that_is_ended_leaves_nothing(
    app_folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM to `opsmesh check deps` ends what it asked, too (a stand-in)."""
    stand_in(home, f"echo $$ > {home}/pid; exec sleep 1000", monkeypatch)
    command = [sys.executable, "-P", "-m", "opsmesh.cli.entry", "check", "deps", str(app_folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    until(lambda: (home / "pid").exists() and bool((home / "pid").read_text()))
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert not Path("/proc", (home / "pid").read_text().strip()).exists()


def asked(*pins: tuple[str, str]) -> dict[Pin, str]:
    return {Pin(name, version): "uv.lock" for name, version in pins}


def test_what_an_answer_lacks_is_unknown() -> None:
    """A skipped package, and one that is not in the answer, are unknown; an answer that is none is
    an error, whatever the exit code was."""
    text = (
        b'{"dependencies": [{"name": "a", "version": "1.0.post1", "vulns": []},'
        b' {"name": "B_c", "skip_reason": "not found on PyPI"}], "fixes": []}'
    )
    audited = answer.decode(text, asked(("a", "1.0-1"), ("b-c", "2"), ("gone", "1")))
    assert audited.judged == 1
    assert audited.unknown == {
        "b-c": "not found on PyPI",
        "gone": "pip-audit said nothing of it",
    }
    for junk in (b"", b"{}", b"[]", b'{"dependencies": {}}'):
        with pytest.raises(ValueError):
            answer.decode(junk, {})


def vulnerable(*packages: str, unknown: Sequence[str] = ()) -> Audited:
    return Audited(
        vulnerabilities=[
            Vulnerability(package=name, version="1", vuln_id="CVE-1") for name in packages
        ],
        unknown=dict.fromkeys(unknown, "no answer"),
        judged=len(packages),
    )


def test_what_is_unknown_is_not_forgotten(home: Path) -> None:
    """A package that could not be judged this time is no news when it can be again; one that was
    mended in between is. What is unknown is told when it is others than before."""
    told: list[tuple[str, Any]] = []

    def emit(topic: str, payload: Any, **more: Any) -> str:
        told.append((topic.rpartition(".")[2], payload.get("package") or payload["count"]))
        return ""

    for verdict in (
        vulnerable("a", "b"),
        vulnerable("b", unknown=["a"]),
        vulnerable("b", unknown=["a"]),
        vulnerable("a"),
        vulnerable("a", "b"),
    ):
        telling.tell(home, verdict, emit)
    assert told == [("detected", "a"), ("detected", "b"), ("incomplete", 1), ("detected", "b")]


def test_very_many_projects_are_not_remembered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ever new folders the newest are kept."""
    monkeypatch.setattr(telling, "MOST_PROJECTS", 2)
    for name in ("a", "b", "c"):
        telling.tell(home / name, vulnerable(), lambda *about, **more: "")
    assert [bool(telling.facts(home / name)) for name in ("a", "b", "c")] == [False, True, True]


@pytest.mark.parametrize(
    ("name", "text", "pins", "unknown"),
    [
        ("uv.lock", UV_LOCK + FROM_GIT, ["idna==3.7", "jinja2==3.1.2"], ["fork"]),
        (
            "poetry.lock",
            '[[package]]\nname = "A.b"\nversion = "1"\n[[package]]\nname = "inner"\n'
            'version = "2"\n[package.source]\ntype = "legacy"\nurl = "https://example.org"\n'
            '[[package]]\nname = "g"\nversion = "2"\n[package.source]\ntype = "git"\nurl = "x"\n',
            ["a-b==1", "inner==2"],
            ["g"],
        ),
        (
            "pdm.lock",
            '[[package]]\nname = "a"\nversion = "1"\n[[package]]\nname = "g"\nversion = "1"\n'
            'git = "https://example.org/g"\n',
            ["a==1"],
            ["g"],
        ),
        (
            "pylock.toml",
            'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\n[[packages]]\n'
            'name = "app"\n[packages.directory]\npath = "."\n[[packages]]\nname = "v"\n'
            '[packages.vcs]\ntype = "git"\nurl = "x"\n',
            ["a==1"],
            ["v"],
        ),
        ("uv.lock", "no toml", [], ["uv.lock"]),
        ("uv.lock", '[[package]]\nname = "a"\nversion = "not one"\n', [], ["a"]),
        (
            "requirements.txt",
            "# a comment\n-i https://user:word@example.org/simple\nA_b[x]==1.0 \\\n"
            "    --hash=sha256:00\nb == 2 ; python_version > '3' # why\nc>=3\nd==1.*\n"
            "e @ https://user:word@example.org/e.zip\nhttps://user:word@example.org/f.zip?t=word\n"
            "-e .\n./own\n-r more.txt\n-c limits.txt\n",
            ["a-b==1.0", "b==2", "c==3.5", "m==1"],
            ["d", "e", "f.zip"],
        ),
        (
            "pyproject.toml",
            '[project]\ndependencies = ["a==1", "b>2"]\n[dependency-groups]\ndev = ["c", {x = 1}]\n'
            "[tool.poetry.dependencies]\npython = '3'\nd = '^1'\n",
            ["a==1"],
            ["b", "c", "d"],
        ),
    ],
)
def test_what_files_name(
    tmp_path: Path, name: str, text: str, pins: list[str], unknown: list[str]
) -> None:
    """Pins, and what is unknown, of each kind of file; no password of a URL is in any name."""
    (tmp_path / name).write_text(text)
    (tmp_path / "more.txt").write_text("m==1\n-r requirements.txt\n")
    (tmp_path / "limits.txt").write_text("c==3.5\nz==1\n")
    found = project.read(tmp_path)
    assert [f"{pin.name}=={pin.version}" for pin in sorted(found.pins)] == pins
    assert sorted(found.unknown) == unknown
    assert "word" not in str(found)


def test_an_environment_says_what_is_installed(tmp_path: Path) -> None:
    """What names no version is looked up in the project's environment, and with it all that is
    installed; the project itself, installed as editable, is left out."""
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["a>1", "missing"]\n')
    place = tmp_path / ".venv/lib/python3.11/site-packages"
    for name in ("a-1.5", "below-2", "app-0.1", "other-1", "vcs-1"):
        (place / f"{name}.dist-info").mkdir(parents=True)
    (tmp_path / ".venv/pyvenv.cfg").touch()
    for name, url in (("app-0.1", f"file://{tmp_path}"), ("vcs-1", "https://example.org/x")):
        (place / f"{name}.dist-info/direct_url.json").write_text(json.dumps({"url": url}))
    found = project.read(tmp_path)
    assert sorted(pin.name for pin in found.pins) == ["a", "below", "other"]
    assert sorted(found.unknown) == ["missing", "vcs"]
    before = project.state(tmp_path)
    (place / "new-1.dist-info").mkdir()
    assert project.state(tmp_path) != before


def test_hostile_lock_files(tmp_path: Path) -> None:
    """5,000 damaged files raise nothing, and whatever they name is a list that pip-audit reads."""
    chance = random.Random(7)
    texts = {"uv.lock": UV_LOCK + FROM_GIT, "requirements.txt": "a==1\n-r more.txt\nb[x]>=2\n"}
    for turn in range(5000):
        name = ("uv.lock", "requirements.txt")[turn % 2]
        text = texts[name]
        cut = chance.randrange(len(text))
        junk = "".join(chance.choice('[]{}="\n\\#-.@:/;a1é\x00') for _ in range(5))
        text = text[:cut] + junk + text[cut + chance.randrange(20) :]
        parse = locks.of_lock if name == "uv.lock" else locks.of_requirements
        try:
            named = parse(text)
        except ValueError:
            continue
        assert locks.of_lock(program.lock(named.pins)).pins == sorted(named.pins)


def test_what_is_included_and_no_file_is_unknown(tmp_path: Path) -> None:
    """A stranger's requirements may name a pipe that nobody writes to, or a device without end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "requirements.txt").write_text("-r pipe\n-r /dev/zero\nflask==1.0\n")
    found = project.read(tmp_path)
    why = "cannot be read: it is no plain file"
    assert found.unknown == {"pipe": why, "/dev/zero": why}
    assert Pin("flask", "1.0") in found.pins


def test_options() -> None:
    """No folder: it says which setting; a relative one, and a round of no time, are errors."""
    assert "producers.options.pip-audit.path" in str(PipAudit().available())
    for wrong in ({"path": "work"}, {"every": "0"}, {"settle": "5"}):
        with pytest.raises(OptionError):
            PipAudit(**wrong)


def test_uv_brings_pip_audit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only uv is, uvx is called with a version that reads lock files."""
    (home / "uvx").write_text("#!/bin/sh\n")
    (home / "uvx").chmod(0o755)
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert program.find(home) == [
        *(str(home / "uvx"), "--quiet", "--from", "pip-audit>=2.9,<3", "pip-audit")
    ]


def test_a_clock_that_was_wrong_delays_no_audit(home: Path) -> None:
    """An audit that is remembered from the future is asked for again within a round."""
    telling.tell(home, vulnerable(), lambda *about, **more: "")
    producer = PipAudit(path=str(home), every="1h")
    memory = home / "state/opsmesh/producers/pip-audit/memory.json"
    remembered = json.loads(memory.read_text())
    remembered["sources"][str(home)]["audited"] = time.time() + 1e7
    memory.write_text(json.dumps(remembered))
    assert producer._project(home).due <= time.time() + 3600
