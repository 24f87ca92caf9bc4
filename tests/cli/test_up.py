"""`opsmesh up` and `opsmesh down`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Cli
from tests.conftest import WHOLE, limited, private_folders
from tests.conftest import until as wait
from typer.testing import Result

from opsmesh.cli import components
from opsmesh.router import supervisor_state
from opsmesh.router.component import birth
from opsmesh.router.settings import Settings


def test_up_says_each_component_and_goes_on(cli: Cli, stand_ins: dict[str, str]) -> None:
    """`up --detach` returns once every component runs, having named each with its pid and log."""
    result = cli("up", "--detach")
    assert result.exit_code == 0, result.output
    state = supervisor_state.running()
    assert state is not None
    assert state.settled
    for status in state.components:
        assert f"pid {status.pid}" in result.stdout
        assert status.log in result.stdout
    assert "opsmesh status" in result.stdout


def test_second_up_leaves_the_first_alone(cli: Cli, stand_ins: dict[str, str]) -> None:
    """A second `up --detach` names the pid of the mesh that runs, disturbs nothing, and is no
    error; in the foreground it is one."""
    cli("up", "--detach")
    state = supervisor_state.running()
    assert state is not None
    again = cli("up", "--detach")
    assert again.exit_code == 0
    assert f"already running (pid {state.pid})" in again.stdout
    assert cli("up").exit_code == 1
    assert supervisor_state.running() == state


def test_up_shows_why_a_component_does_not_start(cli: Cli, stand_ins: dict[str, str]) -> None:
    """When a component fails, `up --detach` exits 1 with the end of its log."""
    stand_ins["bad"] = "raise SystemExit('no such luck')"

    def attempt(seconds: float) -> Result:
        cli("down")
        return cli("up", "--detach", "--wait", f"{8 * seconds:g}")

    # within two seconds a busy machine has not begun the supervisor
    result = limited(attempt, lambda done: "no such luck" in done.stdout)
    assert result.exit_code == 1
    assert "no such luck" in result.stdout
    assert "bad" in result.stderr


def test_down_ends_every_process(cli: Cli, stand_ins: dict[str, str]) -> None:
    """After `down` no process of the mesh is left."""
    cli("up", "--detach")
    state = supervisor_state.running()
    assert state is not None
    result = cli("down")
    assert result.exit_code == 0, result.output
    assert [c.name for c in state.components if birth(c.pid or 0) is not None] == []
    assert birth(state.pid) is None


def test_down_is_idempotent(cli: Cli) -> None:
    """`down` with nothing running says so and succeeds."""
    result = cli("down")
    assert result.exit_code == 0
    assert "no mesh runs here" in result.stdout


def test_up_works_after_a_killed_supervisor(cli: Cli, stand_ins: dict[str, str]) -> None:
    """After kill -9 of the supervisor the next `up` serves at the same address."""
    cli("up", "--detach")
    before = supervisor_state.running()
    assert before is not None
    os.kill(before.pid, signal.SIGKILL)
    wait(lambda: not before.alive)
    assert cli("up", "--detach").exit_code == 0
    after = supervisor_state.running()
    assert after is not None
    assert after.nats_url == before.nats_url


def test_two_meshes_run_side_by_side(
    cli: Cli, stand_ins: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other XDG folders a second mesh runs beside the first, and ends alone."""
    cli("up", "--detach")
    first = supervisor_state.running()
    assert first is not None
    with monkeypatch.context() as other:
        private_folders(tmp_path / "other", other)
        assert cli("up", "--detach").exit_code == 0
        second = supervisor_state.running()
        assert second is not None
        assert second.nats_url != first.nats_url
        cli("down")
    assert supervisor_state.running() == first


def test_foreign_broker_is_not_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With OPSMESH_NATS_URL there is no broker component, and its password is not told."""
    monkeypatch.setenv("OPSMESH_NATS_URL", "nats://me:secret@example.org:4222")
    plan = components.plan(Settings())
    assert "broker" not in [c.name for c in plan.components]
    assert "secret" not in plan.nats_url


def test_disabled_producer_is_not_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that is disabled in the settings is not among the components."""
    monkeypatch.setenv("OPSMESH_PRODUCERS__DISABLED", '["journal"]')
    names = [c.name for c in components.plan(Settings()).components]
    assert "producer:journal" not in names
    assert components.producers(Settings())["journal"] == "disabled in config.yaml"


def test_whole_mesh_in_the_foreground(home: Path) -> None:
    """`opsmesh up` brings the real components up, and Ctrl-C ends them all."""
    command = [sys.executable, "-m", "opsmesh.cli.entry"]
    mesh = subprocess.Popen(
        [*command, "up"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait(lambda: (state := supervisor_state.running()) and state.settled)
        status = subprocess.run([*command, "status", "--json"], capture_output=True, text=True)
        found = json.loads(status.stdout)
        names = {component["name"] for component in found["components"]}
        assert {"broker", "agent", "handlers", "sink"} <= names
        state = supervisor_state.running()
        assert state is not None
        assert state.pid == mesh.pid
    finally:
        mesh.send_signal(signal.SIGINT)
        said, _ = mesh.communicate(timeout=WHOLE)
    assert mesh.returncode == 0, said
    assert "everything runs" in said
