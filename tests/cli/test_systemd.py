"""`opsmesh install systemd`: what is written, what systemd itself says of it, and undoing it. The
`systemctl` here is a stand-in that notes what it is asked; a real one is in tests/e2e."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Cli

from opsmesh.cli.systemd import plan as planning
from opsmesh.cli.systemd import render, wiring
from opsmesh.router import paths, server, supervisor_state
from opsmesh.router.component import birth
from opsmesh.router.containers import look
from opsmesh.router.supervisor_state import State
from opsmesh.router.units import plan as plans
from opsmesh.router.units.names import Manager

SYSTEMCTL = '#!/bin/sh\necho "$@" >>"$ASKED"\nexit "${FAILS:-0}"\n'
#: Exposure, as `systemd-analyze security` counts it, that no unit may exceed (10 is none at all).
#: The handlers run the user's commands.
EXPOSURE = {
    "user": {"handlers": 9.5, "component@": 9.5, "": 2.5},
    "system": {"handlers": 4.5, "component@": 4.5, "plan": 3.5, "producers": 3.5, "": 2.0},
}


@pytest.fixture
def asked(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's manager seems to be there; what systemctl was asked."""
    (home / "bin").mkdir()
    (home / "bin/systemctl").write_text(SYSTEMCTL)
    (home / "bin/systemctl").chmod(0o755)
    (home / "run/systemd").mkdir()
    (home / "run/systemd/private").touch()
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(home / "asked"))
    monkeypatch.setenv("HOME", str(home))
    return home / "asked"


def rendered(folder: Path, manager: Manager) -> Path:
    """The units of a manager, in a folder that systemd-analyze reads."""
    target = folder / manager
    target.mkdir()
    for name, text in render.units(manager, "systemd").items():
        (target / name).write_text(text)
    return target


def analyze(units: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, which sees these units and the machine's own."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("manager", ["user", "system"])
def test_systemd_finds_nothing_wrong(home: Path, manager: Manager) -> None:
    """`systemd-analyze verify` has nothing to say of any unit."""
    units = rendered(home, manager)
    found = analyze(units, f"--{manager}", "verify", "--man=no", *map(str, units.iterdir()))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("manager", ["user", "system"])
def test_units_are_as_tight_as_they_were(home: Path, manager: Manager) -> None:
    """No service is more exposed than was decided for it."""
    units = rendered(home, manager)
    for unit in sorted(units.glob("*.service")):
        told = analyze(units, "security", "--offline=true", str(unit)).stdout
        score = re.search(r"exposure level for .*: ([\d.]+)", told)
        if score is None:
            pytest.skip("this systemd-analyze knows no --offline")
        name = unit.stem.removeprefix("opsmesh-")
        limits = EXPOSURE[manager]
        assert float(score[1]) <= limits.get(name, limits[""]), unit.name


def test_a_path_with_spaces_and_percents_is_read_back(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python and folders whose names hold a space and a % stand in the units so that systemd
    finds them."""
    odd = tmp_path / "odd 100%n"
    (odd / "bin").mkdir(parents=True)
    (odd / "bin/python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(odd / "bin/python"))
    monkeypatch.setenv("XDG_STATE_HOME", str(odd / "state"))
    units = rendered(home, "user")
    found = analyze(units, "--user", "verify", "--man=no", *map(str, units.iterdir()))
    assert (found.returncode, found.stderr) == (0, "")
    text = (units / "opsmesh-agent.service").read_text()
    assert f'ExecStart="{odd}/bin/python" -P'.replace("%", "%%") in text


def test_what_root_runs_takes_nothing_from_the_account(home: Path) -> None:
    """In a shared mesh's units the account can neither choose the code of root's own steps, nor
    their environment."""
    units = render.units("system", "systemd-system")
    roots = [line for text in units.values() for line in text.splitlines() if "=+" in line]
    roots += [line for line in units["opsmesh-agent.socket"].splitlines() if "ExecStart" in line]
    assert len(roots) == 3
    assert all(" -I " in line for line in roots)
    for name, text in units.items():
        for line in text.splitlines():
            if line.startswith("EnvironmentFile="):
                assert line == "EnvironmentFile=-/etc/default/opsmesh", name


def test_install_writes_and_switches_on(cli: Cli, home: Path, asked: Path) -> None:
    """After a yes every unit is there, and systemd is told to begin with them."""
    done = cli("install", "systemd", "--yes")
    assert done.exit_code == 0, done.output
    folder = home / "config/systemd/user"
    assert {one.name for one in folder.iterdir()} == set(render.UNITS)
    assert asked.read_text().splitlines() == [
        "--user daemon-reload",
        "--user enable opsmesh.target",
        "--user restart opsmesh.target",
    ]
    assert Path(paths.state_dir()).stat().st_mode & 0o777 == 0o700


def test_what_will_be_run_is_shown_first(cli: Cli, home: Path, asked: Path) -> None:
    """A dry run shows units and commands, writes nothing and runs nothing."""
    shown = cli("install", "systemd", "--dry-run").output
    assert "then: systemctl --user restart opsmesh.target" in shown
    assert "+++ " in shown
    told = json.loads(cli("install", "systemd", "--json").output)
    assert "systemctl --user daemon-reload" in told[0]["commands"]
    assert not (home / "config/systemd").exists()
    assert not asked.exists()


def test_uninstall_undoes_it(cli: Cli, home: Path, asked: Path) -> None:
    """The units are ended before their files go, and a drop-in of the user's stays."""
    cli("install", "systemd", "--yes")
    mine = home / "config/systemd/user/opsmesh-agent.service.d/mine.conf"
    mine.parent.mkdir()
    mine.write_text("[Service]\nNice=5\n")
    asked.unlink()
    assert cli("uninstall", "systemd", "--yes").exit_code == 0
    assert asked.read_text().splitlines() == [
        "--user stop opsmesh.target opsmesh-*",
        "--user disable opsmesh.target",
        "--user daemon-reload",
    ]
    left = [path for path in (home / "config/systemd").rglob("*") if path.is_file()]
    assert left == [mine]


def test_another_shell_s_path_changes_nothing(
    cli: Cli, home: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units keep the PATH that they were installed with."""
    cli("install", "systemd", "--yes")
    monkeypatch.setenv("PATH", f"{home}/bin:/usr/bin:/bin")
    assert cli("install", "--check").exit_code == 0


def test_a_unit_of_an_older_version_is_stale(cli: Cli, home: Path, asked: Path) -> None:
    """A Python that has moved makes the units stale, and installing anew mends them."""
    cli("install", "systemd", "--yes")
    with pytest.MonkeyPatch.context() as moved:
        moved.setattr(sys, "executable", "/opt/new/bin/python")
        [row] = json.loads(cli("install", "--check", "--json").output)
    assert row["state"] == "stale"
    assert cli("install", "--check").exit_code == 0


def test_a_command_that_fails_is_told_with_the_rest(
    cli: Cli, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When systemd does not do it, the error says that the files are there and what is left."""
    monkeypatch.setenv("FAILS", "4")
    done = cli("install", "systemd", "--yes")
    assert done.exit_code == 1
    assert "the files are written, but systemctl --user daemon-reload failed" in done.output
    assert "systemctl --user restart opsmesh.target" in done.output


def test_units_are_not_switched_on_beside_opsmesh_up(cli: Cli, home: Path, asked: Path) -> None:
    """While `opsmesh up` runs, nothing is written, and the next step is named."""
    paths.private_dir(paths.runtime_dir())
    mine = os.getpid()
    supervisor_state.write(
        State(pid=mine, birth=birth(mine), started="", nats_url="", components=[])
    )
    done = cli("install", "systemd", "--yes")
    assert done.exit_code == 1
    assert "opsmesh down" in done.output
    assert not (home / "config/systemd").exists()


def test_without_a_manager_it_cannot_be_wired(
    cli: Cli, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no `systemd --user` answers, as in containers, the error names the other road."""
    done = cli("install", "systemd", "--yes")
    assert done.exit_code == 1
    assert "opsmesh up --detach" in done.output


def test_a_home_is_no_place_for_a_shared_mesh(home: Path) -> None:
    """System units do not see homes, nor what others may not enter."""
    assert wiring.closed_to_all(Path("/home/ada/venv/bin/python")) == Path("/home")
    assert wiring.closed_to_all(Path("/usr/bin/env")) is None
    closed = home / "closed"
    (closed / "bin").mkdir(parents=True)
    home.chmod(0o755)
    closed.chmod(0o700)
    found = wiring.closed_to_all(closed / "bin/python")
    assert found is not None
    assert not found.stat().st_mode & 0o001


def test_the_plan_is_what_up_would_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan's unit prepares the broker, writes the starter profiles, and plans every component;
    a look again changes only what waits."""
    assert planning.main(["user"]) == 0
    made = plans.read()
    assert made is not None
    assert {"broker", "agent", "handlers", "sink", "producer:shell"} <= {
        one.name for one in made.components
    }
    assert Path(paths.state_dir(), "nats.conf").exists()
    assert Path(paths.config_dir(), "profiles.yaml").exists()
    before = Path(paths.state_dir(), "nats.conf").stat().st_ino
    waiting = [one.name for one in made.components if one.waits_for]
    from opsmesh.cli import components

    come = {one.removeprefix("producer:"): None for one in waiting}
    monkeypatch.setattr(components, "producers", lambda settings: come)
    assert planning.main(["--again", "user"]) == 0
    again = plans.read()
    assert again is not None
    assert waiting
    assert not [one for one in again.components if one.waits_for]
    assert Path(paths.state_dir(), "nats.conf").stat().st_ino == before


def test_a_plan_of_broken_settings_is_a_message(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings that are broken end the plan's unit with file, line and no traceback."""
    folder = Path(paths.private_dir(paths.config_dir()))
    (folder / "config.yaml").write_text("nats:\n  prot: 4222\n")
    assert planning.main(["user"]) == 1
    said = capsys.readouterr().err
    assert "config.yaml:2" in said
    assert "Traceback" not in said


def test_no_plan_is_made_beside_opsmesh_up(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While a supervisor has the lock the plan's unit makes none, and says why."""
    lock = supervisor_state.lock()
    assert planning.main(["user"]) == 1
    os.close(lock)
    assert "already running" in capsys.readouterr().err
    assert plans.read() is None


def test_no_plan_is_made_beside_a_broker_in_a_container(
    nats_server: server.EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broker that outlived the other containers keeps its store to itself."""
    look.folder().mkdir()
    assert planning.main(["user"]) == 1
    assert "make compose-down" in capsys.readouterr().err
