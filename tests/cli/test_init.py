"""`opsmesh init`, with one tool that can be wired: a stand-in, so that no test depends on what is
installed on its machine."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli

from opsmesh.cli import components
from opsmesh.cli.init import settings
from opsmesh.handlers.profiles.profile import load_profiles
from opsmesh.producers import wirings
from opsmesh.producers.errors import Unusable
from opsmesh.producers.install import apply
from opsmesh.producers.wiring import OwnFile, Piece
from opsmesh.router import paths, supervisor_state
from opsmesh.router.settings import Settings


class Lamp:
    """A stand-in for a tool's wiring: one file in the tool's folder."""

    name = "lamp"
    description = "a lamp: on and off"
    topics: Sequence[str] = ("lamp.went.off",)
    producer = None
    patch: pytest.MonkeyPatch

    def __init__(self, folder: Path, *, root: bool = False) -> None:
        self.folder, self.root = folder, root

    def missing(self) -> str | None:
        return None

    def pieces(self) -> Sequence[Piece]:
        return [OwnFile(path=self.folder / "hook", text="tell", root=self.root)]

    def after(self) -> str:
        return "switch the lamp off"


@pytest.fixture
def lamp(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lamp:
    """The one tool of this machine."""
    found = Lamp(tmp_path / "lamp")
    found.patch = monkeypatch
    monkeypatch.setattr(wirings, "discover", lambda: wirings.Found({"lamp": found}))
    why = {"journal": None, "zellij": "zellij is not on PATH"}
    monkeypatch.setattr(components, "producers", lambda given: why)
    return found


def config() -> Path:
    """The folder of this test's configuration."""
    return Path(paths.config_dir())


def facts(cli: Cli, *more: str) -> dict[str, Any]:
    """What `init --json` says."""
    found: dict[str, Any] = json.loads(cli("init", "--json", *more).stdout)
    return found


def test_dry_run_shows_and_writes_nothing(cli: Cli, lamp: Lamp) -> None:
    """--dry-run names what is heard, what would be written, and what is not here; nothing is."""
    done = cli("init", "--dry-run")
    assert done.exit_code == 0
    assert str(lamp.folder / "hook") in done.stdout
    assert "journal" in done.stdout
    assert "zellij" in done.stdout
    assert not lamp.folder.exists()
    assert not config().exists()


def test_yes_wires_and_writes_profiles(cli: Cli, lamp: Lamp) -> None:
    """--yes wires the tool, writes profiles that are valid and name its topics, and says what to
    try."""
    done = cli("init", "--yes", "--start", "later")
    assert done.exit_code == 0, done.output
    assert (lamp.folder / "hook").read_text() == "tell"
    assert "switch the lamp off" in done.stdout
    assert load_profiles(config()).errors == []
    assert "#   lamp         lamp.went.off\n" in (config() / "profiles.yaml").read_text()
    assert "opsmesh exec -- ls /nowhere; opsmesh tail" in done.stdout


def test_again_leaves_what_is_there(cli: Cli, lamp: Lamp) -> None:
    """A second call has nothing to do: profiles that a person changed stay, the tool is wired."""
    cli("init", "--yes", "--start", "later")
    (config() / "profiles.yaml").write_text("version: 1\nprofiles: {}\n")
    again = facts(cli, "--yes", "--start", "later")
    assert (again["offered"], again["wired"], again["profiles"]["written"]) == ([], ["lamp"], False)
    assert (config() / "profiles.yaml").read_text() == "version: 1\nprofiles: {}\n"


def test_a_no_is_remembered(cli: Cli, lamp: Lamp) -> None:
    """What --without refuses is not offered again, until --ask-again."""
    cli("init", "--yes", "--start", "later", "--without", "lamp")
    assert not lamp.folder.exists()
    assert facts(cli)["offered"] == []
    assert [one["name"] for one in facts(cli, "--ask-again")["offered"]] == ["lamp"]


def test_project_is_set_where_nothing_is(cli: Cli, lamp: Lamp, tmp_path: Path) -> None:
    """--project writes a config.yaml that is valid and names the folder; one that is there stays,
    and what to add to it is shown."""
    absent = {"ruff": "no folder is set: producers.options.ruff.path: ~/work/app"}
    lamp.patch.setattr(components, "producers", lambda given: absent)
    project = tmp_path / 'my "app"'
    project.mkdir()
    call = ("--yes", "--start", "later", "--project", str(project))
    assert facts(cli, *call)["config"] == str(config() / "config.yaml")
    assert Settings().producers.options == {"ruff": {"path": str(project)}}
    (config() / "config.yaml").write_text("# mine\n")
    again = cli("init", *call)
    assert "ruff: {path:" in again.stderr
    assert (config() / "config.yaml").read_text() == "# mine\n"


def test_what_is_often_set_is_valid(home: Path) -> None:
    """Every commented line of the config.yaml that is written is a setting."""
    path = settings.write("")
    assert path is not None
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line.removeprefix("# ") for line in lines if "{" in line))
    assert Settings().panes.dashboard == ["btop"]
    assert Settings().redact.emails


def test_nobody_there_to_answer(cli: Cli, lamp: Lamp) -> None:
    """Without a terminal and without --yes nothing is written, and the way on is named."""
    done = cli("init")
    assert done.exit_code == 1
    assert "opsmesh init --yes" in done.stderr
    assert not config().exists()


def test_json_alone_only_looks(cli: Cli, lamp: Lamp) -> None:
    """--json without --yes tells the plan, and does nothing."""
    assert facts(cli)["profiles"]["there"] is False
    assert not config().exists()


def test_folders_of_the_system_are_proposed_to_nobody(cli: Cli, lamp: Lamp) -> None:
    """A tool whose file only root may write is named, and not written, by root neither."""
    lamp.root = True
    done = facts(cli, "--yes", "--start", "later")
    assert (done["offered"], done["system"]) == ([], ["lamp"])
    assert not lamp.folder.exists()


def test_one_that_fails_keeps_no_other_away(
    cli: Cli, lamp: Lamp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool that cannot be written is told, exit code 1; profiles are written all the same."""

    def full(*anything: Any, **more: Any) -> None:
        raise Unusable("/the/disk", "is full")

    monkeypatch.setattr(apply, "install", full)
    done = cli("init", "--yes", "--start", "later")
    assert done.exit_code == 1
    assert "lamp was not wired: /the/disk is full" in done.stderr
    assert (config() / "profiles.yaml").exists()


def test_what_is_not_ours_is_left(cli: Cli, lamp: Lamp) -> None:
    """A file that stands in the place of ours is not touched, and its tool is told with the command
    for it."""
    lamp.folder.mkdir()
    (lamp.folder / "hook").write_text("mine")
    found = facts(cli, "--yes", "--start", "later")
    assert (found["offered"], found["troubles"]) == ([], {"lamp": "edited: opsmesh install lamp"})
    assert (lamp.folder / "hook").read_text() == "mine"


def test_starts_the_mesh(cli: Cli, lamp: Lamp, stand_ins: dict[str, str]) -> None:
    """--yes starts the mesh; a second call says that it runs, and starts no other."""
    done = cli("init", "--yes")
    assert done.exit_code == 0, done.output
    state = supervisor_state.running()
    assert state is not None
    assert facts(cli, "--yes")["runs"]
    assert supervisor_state.running() == state


class Units(Lamp):
    """A stand-in for the units of systemd: a file, and a command that starts them."""

    name = "systemd"

    def reload(self) -> Sequence[Sequence[str]]:
        return []

    def switch_on(self) -> Sequence[Sequence[str]]:
        return [["touch", str(self.folder / "started")]]

    def switch_off(self) -> Sequence[Sequence[str]]:
        return []

    def after(self) -> str:
        return "journalctl has the log"


def test_the_mesh_as_units(cli: Cli, lamp: Lamp, tmp_path: Path) -> None:
    """--start systemd writes the units and starts them, and does nothing of that a second time."""
    units = Units(tmp_path / "units")
    lamp.patch.setattr(wirings, "discover", lambda: wirings.Found({"lamp": lamp, "systemd": units}))
    done = cli("init", "--yes", "--start", "systemd")
    assert done.exit_code == 0, done.output
    assert "journalctl has the log" in done.stdout
    assert (units.folder / "hook").exists()
    assert (units.folder / "started").exists()
    again = cli("init", "--yes", "--start", "systemd")
    assert again.exit_code == 1
    assert "systemctl --user start opsmesh" in again.stderr


def test_no_units_where_no_systemd_runs(cli: Cli, lamp: Lamp) -> None:
    """--start systemd without one is an error with the other way, before anything is written."""
    done = cli("init", "--yes", "--start", "systemd")
    assert done.exit_code == 1
    assert "--start now" in done.stderr
    assert not config().exists()


@pytest.mark.slow
def test_asked_on_a_terminal(home: Path) -> None:
    """On a terminal it asks; no to everything writes profiles alone."""
    ours, theirs = pty.openpty()
    code = "import sys; from opsmesh.cli.main import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-c", code, "init", "--start", "later"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "HOME": str(home), "PATH": "/usr/bin:/bin"},
    ) as process:
        os.close(theirs)
        os.write(ours, b"nobody\nnone\n")
        said = process.communicate(timeout=60)[0].decode()
        os.close(ours)
    assert process.returncode == 0, said
    assert "there is no nobody; there are" in said
    assert (config() / "profiles.yaml").exists()
    assert not (home / ".bashrc").exists()
