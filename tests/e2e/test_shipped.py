"""The shipped profiles in a mesh of real processes: each on a real event, to its bundle and result.

Real: pytest and its plug-in, git, pacman in a root of its own, the journal and its producer, gdb's
absence or presence. Stand-ins, by name: `systemctl`, for which a machine would have to run systemd,
and the entry of the crash, which systemd-coredump has written elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import private_folders
from tests.e2e.test_mesh import Person
from tests.producers import journals
from tests.producers.managers import Pacman, need

#: One mesh for all of them.
pytestmark = pytest.mark.xdist_group("shipped")
SETS = ("config-rollback", "crash-incident", "package-check", "service-triage", "test-diagnosis")
CAPTURE = Path(__file__).parents[1] / "producers/data/journal_vm.jsonl"
#: A stand-in: units are files, whose text is their state.
SYSTEMCTL = """#!/bin/sh
units=UNITS
case "$*" in
  *--failed*|*list-units*) exit 0 ;;
esac
for last; do :; done
state=$(cat "$units/$last" 2>/dev/null || echo inactive)
case "$*" in
  *" show "*) printf "LoadState=loaded\\nActiveState=$state\\nResult=success\\n" ;;
  *" restart "*) echo active > "$units/$last" ;;
  *" cat "*) printf '[Service]\\nExecStart=/bin/false\\n' ;;
  *" status "*) echo "* $last: $state"; exit 3 ;;
  *) exit 0 ;;
esac
"""


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Somebody who has enabled all of them."""
    home = tmp_path_factory.mktemp("shipped")
    if (lack := journals.missing()) is not None:
        assert not os.environ.get("CI"), f"{lack} must be there in CI"
        pytest.skip(f"{lack} is not installed (Debian: systemd-journal-remote)")
    need("pacman", "bsdtar", "git")
    (home / "bin").mkdir()
    (home / "units").mkdir()
    (home / "pacman").mkdir()
    systemctl = home / "bin/systemctl"
    systemctl.write_text(SYSTEMCTL.replace("UNITS", str(home / "units")))
    systemctl.chmod(0o755)
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        (home / "home").mkdir(mode=0o700)
        env.setenv("HOME", str(home / "home"))
        env.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
        env.delenv("PYTEST_ADDOPTS", raising=False)
        someone = Person(home)
        someone.journal = journals.make(home / "journal")
        options = {
            "journal": {"directory": str(someone.journal)},
            "packages": {
                "pacman_log": str(home / "pacman/root/var/log/pacman.log"),
                "vuln_every": "0",
            },
            "dotfiles": {"source": f"{home}/home/dots:git"},
        }
        config = home / "config/opsmesh"
        config.mkdir()
        (config / "config.yaml").write_text(json.dumps({"producers": {"options": options}}))
        someone.pacman = Pacman(home / "pacman")  # type: ignore[attr-defined]
        (home / "pacman/root/var/log/pacman.log").touch()
        _repository(home / "home/dots")
        for name in SETS:
            someone.types("profile", "enable", "--shipped", name)
        _change(
            config / "profiles.d/config-rollback.yaml", 'source: ""', f"source: {home}/home/dots"
        )
        _change(
            config / "profiles.d/crash-incident.yaml",
            "backtrace: true",
            f"backtrace: true, directory: {someone.journal}",
        )
        _change(config / "profiles.d/service-triage.yaml", "settle: 10s", "settle: 0s")
        _change(config / "profiles.d/service-triage.yaml", "within: 15s", "within: 1s")
        _change(config / "profiles.d/service-triage.yaml", "system: false", "system: true")
        _change(
            config / "profiles.d/package-check.yaml", "root: /  ", f"root: {home}/pacman/root  "
        )
        _change(config / "profiles.d/package-check.yaml", "window: 20s", "window: 1s")
        _change(config / "profiles.d/test-diagnosis.yaml", "~/src:", f"{home}:~/src:")
        someone.types("profile", "validate")
        someone.types("up", "--detach")
        someone.waits((home / "state/opsmesh/producers/journal/cursor").exists)
        yield someone
        someone.types("down")


def _change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text, (file.name, before)
    file.write_text(text.replace(before, after))


def _git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _repository(folder: Path) -> None:
    folder.mkdir()
    _git(folder, "init", "-q")
    (folder / "shellrc").write_text("good\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "good")


def _bundle(event: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The manifest of an event's bundle, and its report."""
    folder = Path(event["evidence_path"])
    return json.loads((folder / "manifest.json").read_text()), (folder / "report.md").read_text()


def _approve(person: Person, profile: str) -> None:
    def there() -> str | None:
        found = person.reads("approvals", "ls")
        return next((one["id"] for one in found if one["profile"] == profile), None)

    person.types("approve", person.waits(there))


def test_a_unit_that_fails(person: Person) -> None:
    """The journal says that a unit failed: a report, a restart that is offered, and its outcome."""
    (person.home / "units/t-new.service").write_text("failed\n")
    assert person.journal is not None
    journals.add(person.journal, journals.later("t-new.service", at_us=time.time_ns() // 1000))
    failed = person.event("service.start.failed")
    triaged = person.event("service.triage.completed", causation_id=failed["id"])
    manifest, report = _bundle(triaged)
    assert report.startswith("# `t-new.service` failed on ")
    files = {file["name"]: file for file in manifest["files"]}
    assert files["unit_file.txt"]["sha256"]
    _approve(person, "service-restart")
    decided = person.event("service.restart.decided", causation_id=failed["id"])
    assert decided["payload"]["verdict"] == "granted"
    assert (decided["payload"]["restarted"], decided["payload"]["healthy"]) == (True, True)
    assert (person.home / "units/t-new.service").read_text() == "active\n"


def test_a_test_that_fails(person: Person, tmp_path: Path) -> None:
    """A test passes, its code is broken, it fails: run again alone, beside what has changed."""
    project = person.home / "project"
    project.mkdir()
    (project / "sums.py").write_text("def add(a, b):\n    return a + b\n")
    (project / "test_sums.py").write_text(
        "from sums import add\n\n\ndef test_add():\n    assert add(1, 1) == 2\n"
    )
    (project / ".gitignore").write_text(".pytest_cache\n__pycache__\n")
    _git(project, "init", "-q")
    _git(project, "add", ".")
    _git(project, "commit", "-q", "-m", "works")
    pytest_ = ("exec", "--", sys.executable, "-m", "pytest", "-q")
    person.types(*pytest_, cwd=project)
    # of another size: Python takes the old bytecode for a file of the same size and second
    (project / "sums.py").write_text("def add(a, b):\n    return a - b  # less\n")
    _git(project, "commit", "-qam", "faster")
    person.types(*pytest_, code=1, cwd=project)
    failed = person.event("python.test.failed")
    diagnosed = person.event("python.test.diagnosed", causation_id=failed["id"])
    assert diagnosed["payload"]["tests"] == ["test_sums.py::test_add"]
    assert diagnosed["payload"]["reproduced"] is True
    manifest, report = _bundle(diagnosed)
    assert "return a - b" in report  # the changes, or the traceback
    assert "faster" in report
    names = {file["name"] for file in manifest["files"]}
    assert {"test_rerun.txt", "since_passed.txt", "since_passed.diff"} <= names


def test_a_package_that_breaks_something(person: Person) -> None:
    """pacman installs a program whose library is not there: it is named, and the person is told."""
    pacman: Pacman = person.pacman  # type: ignore[attr-defined]
    program = Path("/bin/ls").read_bytes().replace(b"libc.so.6", b"libq.so.6")
    pacman.package("hello", "1.0-1")
    made = pacman.folder / "build-hello-1.0-1"
    (made / "usr/bin").mkdir()
    (made / "usr/bin/hello").write_bytes(program)
    file = pacman.folder / "repo/hello-1.0-1-any.pkg.tar.zst"
    subprocess.run(["bsdtar", "--zstd", "-cf", file, ".PKGINFO", "usr"], cwd=made, check=True)
    subprocess.run(pacman.command("-U", file), check=True, capture_output=True)
    changed = person.event("package.txn.completed")
    checked = person.event("package.check.completed", causation_id=changed["id"])
    assert checked["payload"]["libraries"] >= 1
    assert checked["payload"]["transaction"] == changed["id"]
    _, report = _bundle(checked)
    assert "libq.so.6" in report
    assert changed["id"] in person.types("trace", checked["id"])


def test_dotfiles_that_cannot_be_applied(person: Person) -> None:
    """An apply goes well, the next one fails: what was changed, and back to the good commit."""
    dots = person.home / "home/dots"
    apply = ("dotfiles", "apply", "--tool", "git", "--")
    person.types(*apply, "true", cwd=dots)
    completed = person.event("config.apply.completed")
    good = completed["payload"]["revision"]
    (dots / "shellrc").write_text("bad\n")
    _git(dots, "commit", "-qam", "bad")
    (dots / "shellrc").write_text("worse, and not committed\n")
    person.types(*apply, "sh", "-c", "echo no such option >&2; exit 3", code=None, cwd=dots)
    failed = person.event("config.apply.failed")
    recorded = person.event("config.failure.recorded", causation_id=failed["id"])
    _, report = _bundle(recorded)
    assert "no such option" in report
    assert "worse, and not committed" in report
    _approve(person, "config-rollback")
    decided = person.event("config.rollback.decided", causation_id=failed["id"])
    assert decided["payload"]["verified"] is True, decided["payload"]
    assert decided["payload"]["to"] == good
    assert (dots / "shellrc").read_text() == "good\n"
    kept = decided["payload"]["before"]
    assert _git(dots, "show", f"{kept}:shellrc") == "worse, and not committed"


def test_a_crash(person: Person) -> None:
    """systemd-coredump logs a crash: its facts without its secrets, in one bundle."""
    assert person.journal is not None
    entries = [json.loads(line) for line in CAPTURE.read_text().splitlines()]
    entry = next(one for one in entries if one.get("COREDUMP_PID") == "173")
    now_us = time.time_ns() // 1000
    secret = "hunter" + "2hunter2"
    entry["COREDUMP_ENVIRON"] = f"API_TOKEN={secret}"
    entry["__REALTIME_TIMESTAMP"] = str(now_us)
    lines = [
        f"{name}={value}"
        for name, value in entry.items()
        if name != "__CURSOR" and isinstance(value, str) and "\n" not in value
    ]
    same = (b"__MONOTONIC_TIMESTAMP=", b"_BOOT_ID=")  # of the machine that the journal is of
    block = journals.later("x.service", at_us=now_us).splitlines()
    lines += [line.decode() for line in block if line.startswith(same)]
    export = "\n".join(lines) + "\n\n"
    journals.add(person.journal, export.encode())
    crashed = person.event("system.coredump.created")
    recorded = person.event("system.incident.recorded", causation_id=crashed["id"])
    assert recorded["payload"]["signal"] == "SIGABRT"
    manifest, report = _bundle(recorded)
    assert "python3" in report
    folder = Path(recorded["evidence_path"])
    assert not [p for p in folder.iterdir() if secret.encode() in p.read_bytes()]
    files = {file["name"]: file for file in manifest["files"]}
    assert files["coredump.txt"]["sha256"], files["coredump.txt"]["error"]
