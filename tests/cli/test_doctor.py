"""`opsmesh doctor`: one line a check, and the loss that a person accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Cli
from tests.conftest import mesh_client, run

from opsmesh.cli import components, producer
from opsmesh.producers.troubles import Troubles
from opsmesh.router import paths, server, topology


def checks(cli: Cli) -> dict[str, dict[str, Any]]:
    """The checks of `doctor --json` by name."""
    return {check["check"]: check for check in json.loads(cli("doctor", "--json").stdout)}


def known() -> topology.Known:
    """What was last known of the streams."""
    return topology.Known(Path(paths.state_dir(), "known.json"))


def test_checks_have_a_mark_each(cli: Cli) -> None:
    """Each check is one line that begins with its mark."""
    lines = [line for line in cli("doctor").stdout.splitlines() if line[:1] in "✓✗–" and line]
    assert len(lines) >= 10
    assert any("nats-server: v" in line for line in lines)


def test_broken_settings_are_one_finding(cli: Cli, home: Path) -> None:
    """A broken config.yaml is named with its line, and the other checks still run."""
    folder = home / "config" / "opsmesh"
    folder.mkdir()
    (folder / "config.yaml").write_text("nats:\n  prt: 1\n")
    found = checks(cli)
    assert found["settings"]["ok"] is False
    assert "config.yaml:2:3: unknown key 'prt'; did you mean 'port'?" in found["settings"]["detail"]
    assert found["Python"]["ok"] is True
    assert cli("doctor").exit_code == 1


def test_open_folder_is_found(cli: Cli, home: Path) -> None:
    """A state folder that others may enter is wrong, with the command that mends it."""
    folder = home / "state" / "opsmesh"
    folder.mkdir()
    folder.chmod(0o755)
    found = checks(cli)["state folder"]
    assert found["ok"] is False
    assert found["fix"] == f"chmod 700 {folder}"


def test_missing_server_is_found(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nats-server that is not there is a finding with the variable to mend."""
    monkeypatch.setenv("OPSMESH_NATS_SERVER", "/nonexistent/nats-server")
    found = checks(cli)["nats-server"]
    assert found["ok"] is False
    assert "OPSMESH_NATS_SERVER" in found["fix"]


def test_loss_is_accepted_once(cli: Cli, stand_ins: dict[str, str]) -> None:
    """--accept-loss forgets the streams that are behind, and has nothing to do the second time."""
    cli("up", "--detach")

    async def create() -> None:
        async with mesh_client():
            pass

    run(create())
    known().remember({"EVENTS": 9})
    assert checks(cli)["stream EVENTS"]["ok"] is False
    assert cli("doctor", "--accept-loss", input="n\n").exit_code == 1
    assert known().last_seq("EVENTS") == 9
    assert cli("doctor", "--accept-loss", "--yes").exit_code == 0
    assert known().last_seq("EVENTS") == 0
    assert "nothing to accept" in cli("doctor", "--accept-loss", "--yes").stdout
    assert checks(cli)["stream EVENTS"]["ok"] is True
    assert checks(cli)["durability"]["ok"] is True


def test_nothing_is_accepted_without_a_mesh(cli: Cli, nats_server: server.EmbeddedServer) -> None:
    """Without a running mesh nothing is known to be lost, so nothing is forgotten."""
    known().remember({"EVENTS": 9})
    assert "nothing to accept" in cli("doctor", "--accept-loss", "--yes").stdout
    assert known().last_seq("EVENTS") == 9


def test_probe_without_a_mesh_is_a_finding(cli: Cli, home: Path) -> None:
    """--probe adds its own lines, and takes none of the others away when no mesh runs."""
    result = cli("doctor", "--probe", "--json")
    found = {check["check"]: check for check in json.loads(result.stdout)}
    assert found["probe"]["detail"].startswith("nothing is wired")
    assert found["Python"]["ok"] is True


def test_a_producer_that_cannot_do_its_work(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a running producer cannot do is a finding, in one line, until it can again."""
    monkeypatch.setattr(components, "producers", lambda settings: {"ruff": None})
    monkeypatch.setattr(producer, "rows", lambda: [{"name": "ruff", "state": "running"}])
    troubles = Troubles("ruff")
    troubles.note("/home/dev/app", "ruff failed\n  Cause: unknown field")
    found = checks(cli)["producer ruff"]
    assert (found["ok"], found["detail"]) == (False, "ruff failed Cause: unknown field")
    troubles.over("/home/dev/app")
    assert checks(cli)["producer ruff"]["ok"] is not False
