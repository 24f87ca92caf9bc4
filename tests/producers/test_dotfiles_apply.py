"""`opsmesh dotfiles` as a user types it, on real stow, git and yadm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.producers.agent import StandInAgent, spooled, standing_in
from tests.producers.test_dotfiles import git, needs
from typer.testing import CliRunner

from opsmesh.cli.main import app
from opsmesh.producers.dotfiles.wiring import DotfilesWiring
from opsmesh.producers.wiring import OwnFile
from opsmesh.schemas import registry

PASSES, FAILS = f"{sys.executable} -c pass", f"{sys.executable} -c exit(7)"


@pytest.fixture
def dots(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with two packages for stow; we are in it."""
    needs("stow")
    monkeypatch.setenv("HOME", str(home))
    folder = home / "dotfiles"
    for package, name in (("bash", ".bashrc"), ("zsh", ".zshrc")):
        (folder / package).mkdir(parents=True)
        (folder / package / name).write_text(package)
    (folder / ".stowrc").write_text("--verbose\n")
    monkeypatch.chdir(folder)
    return folder


def opsmesh(*words: str) -> subprocess.CompletedProcess[str]:
    """The command: a process of its own where it applies something."""
    if words[0] != "apply":
        done = CliRunner().invoke(app, ["dotfiles", *words])
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
    command = [sys.executable, "-P", "-m", "opsmesh.cli.entry", "dotfiles", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_an_apply_tells_its_start_and_its_end(dots: Path, agent: StandInAgent) -> None:
    """started and completed share a correlation; the links that stow made are told."""
    done = opsmesh("apply", "--check", PASSES, "--", "stow", "bash")
    assert done.returncode == 0, done.stderr
    assert "LINK: .bashrc" in done.stderr
    started, completed = agent.events
    assert started["topic"] == "config.apply.started"
    assert started["payload"]["argv"] == ["stow", "bash"]
    assert started["payload"]["source_dir"] == str(dots)
    assert completed["topic"] == "config.apply.completed"
    assert completed["payload"]["paths"] == [".bashrc"]
    assert completed["correlation_id"] == started["correlation_id"]
    for event in agent.events:
        registry.load_registry(None).check(event["topic"], event["payload"])


def test_a_conflict_is_a_failure_with_its_paths(dots: Path, agent: StandInAgent) -> None:
    """stow's exit code comes through; the files in conflict and its words are told."""
    (dots.parent / ".zshrc").write_text("theirs")
    assert opsmesh("apply", "--", "stow", "zsh").returncode == 1
    failed = agent.events[1]
    assert failed["topic"] == "config.apply.failed"
    assert failed["payload"]["paths"] == [".zshrc"]
    assert failed["payload"]["phase"] == "apply"
    assert "would cause conflicts" in failed["payload"]["output_tail"]


def test_a_check_that_fails_keeps_everything_as_it_is(dots: Path, agent: StandInAgent) -> None:
    """The first check that fails is named; nothing is applied; the exit code is 65."""
    config = Path(os.environ["XDG_CONFIG_HOME"], "opsmesh")
    config.mkdir()
    (config / "config.yaml").write_text(
        f"dotfiles:\n  checks:\n    - [{sys.executable}, -c, 'print(1)']\n"
    )
    done = opsmesh("apply", "--check", FAILS, "--check", "touch never", "--", "stow", "bash")
    assert done.returncode == 65
    assert "nothing was applied" in done.stderr
    assert not (dots.parent / ".bashrc").is_symlink()
    assert not (dots / "never").exists()
    (failed,) = agent.events
    assert failed["topic"] == "config.apply.failed"
    assert failed["payload"]["phase"] == "validation"
    assert failed["payload"]["check"] == [sys.executable, "-c", "exit(7)"]
    assert failed["payload"]["exit_code"] == 7
    registry.load_registry(None).check(failed["topic"], failed["payload"])


def test_a_dry_run_shows_and_does_nothing(dots: Path, agent: StandInAgent) -> None:
    """Checks and command are printed; neither runs."""
    done = opsmesh("apply", "--dry-run", "--check", "touch never", "--", "stow", "bash")
    assert done.returncode == 0
    assert "check  touch never" in done.stdout
    assert "apply  stow bash  (as stow)" in done.stdout
    assert not (dots / "never").exists()
    assert agent.events == []


def test_check_alone(dots: Path) -> None:
    """The gate without an apply: 0, 65, and a wrong call without any check."""
    assert opsmesh("check", "--check", PASSES).returncode == 0
    done = opsmesh("check", "--json", "--check", FAILS)
    assert done.returncode == 65
    assert json.loads(done.stdout)["failed"]["exit_code"] == 7
    assert opsmesh("check").returncode == 2
    assert opsmesh("check", "--check", "no 'end").returncode == 2


def test_an_unknown_manager_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells what `make` applies; --tool does."""
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    done = opsmesh("apply", "--", "make", "install")
    assert done.returncode == 2
    assert "--tool" in done.stderr


def test_the_one_known_source_is_taken_wherever_we_are(
    dots: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called from another folder, the checks run in the source, and the tool is its own."""
    assert opsmesh("apply", "--", "stow", "bash").returncode == 0
    monkeypatch.chdir(home / "state")
    check = f"{sys.executable} -c 'import os, sys; sys.exit(not os.path.isdir(\"bash\"))'"
    done = opsmesh("apply", "--check", check, "--dry-run", "--", "make")
    assert f"(in {dots})" in done.stdout
    assert "(as stow)" in done.stdout
    assert opsmesh("check", "--check", check).returncode == 0
    stow = ("stow", "-d", str(dots), "zsh")
    assert opsmesh("apply", "--check", check, "--", *stow).returncode == 0


def test_without_an_agent_or_with_one_that_hangs(dots: Path, home: Path) -> None:
    """The apply is done all the same, and its events wait in the spool."""
    assert opsmesh("apply", "--", "stow", "bash").returncode == 0
    with standing_in(home, hang=True):
        assert opsmesh("apply", "--", "stow", "zsh").returncode == 0
    assert len(spooled(home)) == 4
    assert opsmesh("apply", "--", "stow-is-not-here", "--tool", "stow").returncode == 127


def test_status(dots: Path) -> None:
    """Sources, and how the last apply went."""
    opsmesh("apply", "--", "stow", "bash")
    told = json.loads(opsmesh("status", "--json").stdout)
    assert [(s["tool"], s["source"]) for s in told["sources"]] == [("stow", str(dots))]
    assert told["last_apply"]["topic"] == "config.apply.completed"
    said = opsmesh("status").stdout
    assert "never asked" in said
    assert "last apply: stow completed" in said


def test_yadm_tells_of_a_pull_that_failed(
    home: Path, monkeypatch: pytest.MonkeyPatch, agent: StandInAgent
) -> None:
    """The hook that `install dotfiles` writes, run by the real yadm; inside an apply it is mute."""
    needs("yadm", "git")
    monkeypatch.setenv("HOME", str(home))
    commands = home / "bin"
    commands.mkdir()
    (commands / "opsmesh").write_text(
        f'#!/bin/sh\nexec {sys.executable} -P -m opsmesh.cli.entry "$@"\n'
    )
    (commands / "opsmesh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    for piece in DotfilesWiring().pieces():
        assert isinstance(piece, OwnFile)
        piece.path.parent.mkdir(parents=True, exist_ok=True)
        piece.path.write_text(piece.text)
        piece.path.chmod(piece.mode)
    upstream = home / "upstream"
    upstream.mkdir()
    git(upstream, "init", "-q", "-b", "main")
    (upstream / ".inputrc").write_text("x\n")
    git(upstream, "add", ".")
    name = ("-c", "user.name=Dev", "-c", "user.email=dev@example.org")
    git(upstream, *name, "commit", "-qm", "one")
    subprocess.run(["yadm", "clone", "-q", "--no-bootstrap", str(upstream)], check=True)
    assert subprocess.run(["yadm", "pull", "-q"], check=False).returncode == 0
    upstream.rename(home / "gone")
    failing = subprocess.run(["yadm", "pull", "-q"], check=False, capture_output=True)
    assert failing.returncode != 0
    completed, failed = agent.events
    assert completed["topic"] == "config.apply.completed"
    assert completed["payload"] == {"tool": "yadm", "argv": ["yadm", "pull"]}
    assert completed["source"] == "dotfiles"
    assert failed["topic"] == "config.apply.failed"
    assert failed["payload"]["exit_code"] == failing.returncode
    assert opsmesh("apply", "--", "yadm", "pull", "-q").returncode != 0
    assert [event["topic"] for event in agent.events[2:]] == [
        "config.apply.started",
        "config.apply.failed",
    ]
