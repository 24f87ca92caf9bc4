"""The collectors of this machine: packages, configuration, tests, environment, processes, disks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.handlers.collecting import Context, collect

from opsmesh.handlers.collectors import packages, processes, recent
from opsmesh.schemas import times


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others in PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.mark.skipif(not packages.Dpkg.here(), reason="dpkg has no database here")
def test_packages_of_the_program(context: Context) -> None:
    """The package that owns the event's program is found, with its version."""
    made = collect(context, ["package_versions"], {"exe": "/usr/bin/dpkg"})
    version = made.facts("package_versions")["packages"]["dpkg"]
    asked = subprocess.run(
        ["dpkg-query", "-W", "-f=${Version} ${Architecture}", "dpkg"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert version == asked.stdout
    assert "dpkg owns /usr/bin/dpkg" in made.text("package_versions")


@pytest.mark.skipif(not packages.Dpkg.here(), reason="dpkg has no database here")
def test_packages_that_are_named(context: Context) -> None:
    """A package that is not installed, and a file of none, are told as such."""
    item = {"package_versions": {"names": ["dpkg", "no-such-package"], "files": ["/etc/nothing"]}}
    facts = collect(context, [item], {}).facts("package_versions")
    assert facts["missing"] == ["no-such-package"]
    assert facts["unowned"] == ["/etc/nothing"]


@pytest.mark.parametrize("name", ["--admindir=/x", "-W", "a*", "a b", ""])
def test_package_of_a_stranger(context: Context, name: str) -> None:
    """What is no name of a package reaches no tool."""
    item = {"package_versions": {"names": ["${{ event.payload.name }}"]}}
    made = collect(context, [item], {"name": name})
    assert made.error("package_versions").endswith("is not the name of a package")


@pytest.mark.skipif(shutil.which("pacman") is None, reason="pacman is missing")
def test_packages_of_pacman(
    context: Context, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real pacman is asked for the owner of a file, and for versions."""
    entry = tmp_path / "db" / "local" / "hello-2.1-3"
    entry.mkdir(parents=True)
    (tmp_path / "db" / "local" / "ALPM_DB_VERSION").write_text("9\n")
    (entry / "desc").write_text("%NAME%\nhello\n\n%VERSION%\n2.1-3\n\n")
    (entry / "files").write_text("%FILES%\nusr/\nusr/bin/\nusr/bin/env\n\n")
    real = f"exec {shutil.which('pacman')} --dbpath {tmp_path}/db"
    (tmp_path / "pacman.conf").write_text("[options]\n")
    tool(tools, "pacman", f'{real} --config {tmp_path}/pacman.conf "$@"')
    monkeypatch.setattr(packages, "PACMAN_LOCAL", tmp_path / "db" / "local")
    monkeypatch.setattr(packages, "DPKG_STATUS", tmp_path / "none")
    item = {"package_versions": {"names": ["hello", "nope"], "files": ["/usr/bin/env"]}}
    made = collect(context, [item], {})
    assert made.facts("package_versions") == {
        "packages": {"hello": "2.1-3"},
        "missing": ["nope"],
        "unowned": [],
    }


def test_history_of_the_log(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without events of the mesh, the package manager's own log tells what was done in the time."""
    log = tmp_path / "pacman.log"
    log.write_text(
        "[2026-11-22T09:00:00+0000] [ALPM] transaction started\n"
        "[2026-11-22T09:00:01+0000] [ALPM] upgraded openssl (3.1-1 -> 3.2-1)\n"
        "[2026-11-01T09:00:01+0000] [ALPM] upgraded old (1 -> 2)\n"
        "[2026-11-24T09:00:01+0000] [ALPM] upgraded later (1 -> 2)\n"
    )
    monkeypatch.setattr(recent, "PACMAN_LOG", log)
    monkeypatch.setattr(recent, "DPKG_LOG", tmp_path / "none")
    text = collect(context, ["package_history"], {}).text("package_history")
    assert [line.split()[3] for line in text.splitlines()[1:]] == ["openssl"]


def test_snapshot(context: Context, tmp_path: Path) -> None:
    """Files are there with mode, size, hash and text; what is missing is named."""
    folder = tmp_path / "conf"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.conf").write_text("key = 1\n")
    (folder / "sub" / "b.conf").write_text("other\n")
    (folder / "link").symlink_to("/etc/shadow")
    paths = [str(folder), str(tmp_path / "none")]
    made = collect(context, [{"config_snapshot": {"paths": paths}}], {})
    text = made.text("config_snapshot")
    assert "==> " + str(folder / "sub" / "b.conf") + "\nother\n" in text
    assert "-> /etc/shadow" in text
    assert "root:" not in text
    assert made.facts("config_snapshot")["missing"] == [str(tmp_path / "none")]


def test_snapshot_changes(context: Context, tmp_path: Path) -> None:
    """Against the step's last bundle, what was changed is a diff; a secret that stayed is not."""
    secret = "hunter2hunter2"
    file = tmp_path / "app.conf"
    file.write_text(f"key = 1\npassword = {secret}\n")
    item = {"config_snapshot": {"paths": [str(file)]}}
    first = collect(context, [item], {}, run_id="run1")
    assert not first.facts("config_snapshot")["changed"]
    file.write_text(f"key = 2\npassword = {secret}\n")
    second = collect(context, [item], {}, run_id="run2")
    difference = second.text("config_snapshot_diff")
    assert "-key = 1\n+key = 2\n" in difference
    assert not [line for line in difference.splitlines() if line[:1] in "+-" and "passw" in line]
    assert secret not in "".join(path.read_text() for path in second.folder.iterdir())
    assert sum(second.manifest["removed"].values()) >= 1


def test_snapshot_of_another_step(context: Context, tmp_path: Path) -> None:
    """A bundle of another profile is no bundle before this one."""
    file = tmp_path / "app.conf"
    file.write_text("1\n")
    item = {"config_snapshot": {"paths": [str(file)]}}
    collect(context, [item], {}, run_id="run1", profile="other")
    file.write_text("2\n")
    made = collect(context, [item], {}, run_id="run2")
    assert not made.facts("config_snapshot")["changed"]


def test_last_failed(context: Context, tmp_path: Path) -> None:
    """What failed in a real run of pytest is read from its cache."""
    (tmp_path / "test_it.py").write_text(
        "def test_good(): pass\n\ndef test_bad(): assert 0\n\ndef test_worse(): assert 0\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-c", "/dev/null"]
    options = ["--rootdir", str(tmp_path), str(tmp_path), "-p", "no:pytest_opsmesh"]
    env = {"PATH": os.environ["PATH"], "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([*command, *options], env=env, cwd=tmp_path, capture_output=True)
    assert done.returncode == 1, done.stdout
    made = collect(context, ["pytest_last_failed"], {"rootdir": str(tmp_path)})
    facts = made.facts("pytest_last_failed")
    assert facts["failed"] == ["test_it.py::test_bad", "test_it.py::test_worse"]
    assert (facts["count"], facts["total"]) == (2, 3)


def test_no_cache_of_pytest(context: Context, tmp_path: Path) -> None:
    """A project in which pytest never ran says so."""
    made = collect(context, ["pytest_last_failed"], {"rootdir": str(tmp_path)})
    assert "no cache of pytest" in made.error("pytest_last_failed")


def test_cache_of_a_stranger(context: Context, tmp_path: Path) -> None:
    """A cache that is no list of tests is an error, not a crash."""
    cache = tmp_path / ".pytest_cache" / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text("[1, 2")
    made = collect(context, ["pytest_last_failed"], {"rootdir": str(tmp_path)})
    assert made.error("pytest_last_failed").endswith("is no JSON")


def test_cache_that_is_a_link(context: Context, tmp_path: Path) -> None:
    """A cache that leads out of the project is not followed."""
    private = tmp_path / "private.json"
    private.write_text('{"a-private-key": true}')
    cache = tmp_path / "project" / ".pytest_cache" / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").symlink_to(private)
    made = collect(context, ["pytest_last_failed"], {"rootdir": str(tmp_path / "project")})
    assert "is not within" in made.error("pytest_last_failed")


def test_environment(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen variables are told, those with a secret's name are not."""
    monkeypatch.setenv("APP_MODE", "fast")
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("NOT_CHOSEN", "private")
    item = {"env_summary": {"variables": ["APP_MODE", "DATABASE_PASSWORD"]}}
    made = collect(context, [item], {})
    text = made.text("env_summary")
    assert "$APP_MODE: fast\n" in text
    assert "$DATABASE_PASSWORD: [redacted" in text
    whole = "".join(path.read_text() for path in made.folder.iterdir())
    assert "hunter2hunter2" not in whole
    assert "private" not in text


def test_environment_changes(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is different from the last bundle of the step is a piece of its own."""
    item = {"env_summary": {"variables": ["APP_MODE"]}}
    monkeypatch.setenv("APP_MODE", "slow")
    collect(context, [item], {}, run_id="run1")
    monkeypatch.setenv("APP_MODE", "fast")
    made = collect(context, [item], {}, run_id="run2")
    assert "-$APP_MODE: slow\n+$APP_MODE: fast\n" in made.text("env_summary_diff")


def test_environment_starts_nothing_of_the_folder(context: Context, tmp_path: Path) -> None:
    """A folder's own Python is told by its virtual environment's file, and never started."""
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    tool(venv / "bin", "python", f"touch {tmp_path}/ran")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.12.1\n")
    (venv / "lib/python3.12/site-packages/pytest-8.4.1.dist-info").mkdir(parents=True)
    item = {"env_summary": {"packages": True}}
    text = collect(context, [item], {"rootdir": str(tmp_path)}).text("env_summary")
    assert ".venv python: 3.12.1 of /usr/bin\n" in text
    assert "package pytest 8.4.1\n" in text
    assert not (tmp_path / "ran").exists()


def test_processes(context: Context) -> None:
    """The event's process is shown with its parents and children, secrets of argv taken out."""
    script = "sleep 60 & echo ready; wait"
    command = ["sh", "-c", script, "sh", "--password", "hunter2hunter2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        made = collect(context, ["process_tree"], {"pid": process.pid})
        os.killpg(process.pid, 9)
    text = made.text("process_tree")
    assert f"{process.pid} " in text
    assert "sleep 60" in text
    assert str(os.getpid()) in text
    assert "hunter2hunter2" not in text


def test_processes_of_a_unit(
    context: Context, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pid it is all of the unit's control group, the groups below it too."""
    tool(tools, "systemctl", "echo /app.slice/backup.service")
    group = tmp_path / "cgroup" / "app.slice" / "backup.service" / "child"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text(f"{os.getpid()}\n")
    monkeypatch.setattr(processes, "CGROUPS", (tmp_path / "cgroup",))
    made = collect(context, ["process_tree"])
    assert made.facts("process_tree") == {"count": 1, "pids": [os.getpid()]}


def test_process_is_gone(context: Context) -> None:
    """A process that has ended is told as gone."""
    with subprocess.Popen(["true"]) as process:
        pass
    made = collect(context, ["process_tree"], {"pid": process.pid})
    assert made.error("process_tree") == f"process {process.pid} is gone"


@pytest.mark.parametrize("pid", ["-1", "1; ls", "0", "99999999999", True])
def test_pid_of_a_stranger(context: Context, pid: object) -> None:
    """What is no id of a process is refused."""
    made = collect(context, ["process_tree"], {"pid": pid})
    assert made.error("process_tree").endswith("is not the id of a process")


def test_disk(context: Context, tmp_path: Path) -> None:
    """The file system of a path is told in bytes and inodes."""
    made = collect(context, [{"disk": {"paths": [str(tmp_path)]}}], {})
    [found] = made.facts("disk")["file_systems"]
    assert found["available_kib"] == pytest.approx(
        shutil.disk_usage(tmp_path).free / 1024, rel=0.05
    )
    assert 0 <= found["used"] <= 100


def test_unit_file_with_drop_ins(context: Context, tools: Path) -> None:
    """`unit_file` is what `systemctl cat` prints: the file, and its drop-ins with their paths."""
    tool(tools, "systemctl", 'printf "# /etc/a.service\\n# /etc/a.service.d/b.conf\\n%s\\n" "$*"')
    text = collect(context, ["unit_file"]).text("unit_file")
    assert "b.conf" in text
    assert text.endswith("--full cat -- backup.service\n")


def test_journal_since_the_last_start(context: Context, tools: Path) -> None:
    """With `since_last_start` the journal begins where systemd says that the unit was last up."""
    made = collect(context, ["unit_file"])
    at = times.parse_us("2026-11-23T09:12:00Z") // 1_000_000
    tool(tools, "systemctl", f"echo @{at - 7200}")
    tool(tools, "journalctl", 'echo "$*"')
    item = {"journal": {"since_last_start": True}}
    made = collect(context, [item], run_id="run2")
    assert f"--since=@{at - 7202} " in made.text("journal")
    assert made.facts("journal")["started"] == at - 7200


def test_journal_without_a_start(context: Context, tools: Path) -> None:
    """A unit that never was up has its usual time."""
    tool(tools, "systemctl", "echo")
    tool(tools, "journalctl", 'echo "$*"')
    item = {"journal": {"since_last_start": True, "since": "1m"}}
    at = times.parse_us("2026-11-23T09:12:00Z") // 1_000_000
    assert f"--since=@{at - 60} " in collect(context, [item]).text("journal")


def test_facts_are_the_steps(context: Context, tmp_path: Path) -> None:
    """Later steps see the facts by the names of pieces."""
    made = collect(context, [{"name": "space", "disk": {"paths": [str(tmp_path)]}}], {})
    assert made.result.output["facts"]["space"]["full"] == []
    json.dumps(made.result.output)


#: What is no unit, process, path or reference, and would be something else to a tool.
STRANGE = (
    *("-x", "--help", "--output=/tmp/x", "-C/tmp", "--git-dir=/x", "-iex", "--eval-command=shell"),
    *("$(touch ran)", "`touch ran`", "; touch ran", "| touch ran", "&& touch ran", "> ran"),
    *("../../etc/passwd", "a\nb", "a\0b", "*", "a*", "[a-z]", "%n", "%s%s", "{{7*7}}"),
    *("${{ 1 }}", "@file", "!touch ran", "'; touch ran; '", '"', "\\", "\x1b]0;x\x07", "\u202e"),
)


#: Strange, and a unit's name all the same (systemd.unit(5)): one argument, behind `--`.
UNITS = ["@file", "\\"]


def test_strangers_reach_no_tool(context: Context, tools: Path, tmp_path: Path) -> None:
    """Nothing of a payload that is not what it should be becomes an argument of any tool."""
    log = tmp_path / "argv.log"
    for name in ("systemctl", "journalctl", "gdb", "git", "dpkg-query", "pacman"):
        tool(tools, name, f'for a in "$@"; do printf "%s\\0" "$a" >> {log}; done; exit 1')
    words = ["unit_status", "unit_file", "journal", "coredump", "package_versions", "git_state"]
    words += ["process_tree", "pytest_last_failed", "package_history", "env_summary", "disk"]
    for number, text in enumerate(STRANGE):
        payload = dict.fromkeys(("unit", "pid", "exe", "rootdir", "cwd", "manager"), text)
        collect(context, words, payload, run_id=f"run{number}")
    log.touch()
    seen = log.read_text().split("\0")
    assert [text for text in STRANGE if any(text in argument for argument in seen)] == UNITS
    assert not list(tmp_path.rglob("ran"))
