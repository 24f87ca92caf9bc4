"""`opsmesh env`: what a foreign client needs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nats
import pytest
from tests.cli.conftest import Cli
from tests.conftest import run

from opsmesh.router import server


def test_assignments_survive_a_shell(
    cli: Cli, home: Path, nats_server: server.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that evaluates the output has every value as it is, whatever is in it."""
    odd = home / "it's $HOME; `x`"
    monkeypatch.setenv("OPSMESH_EVIDENCE__FOLDER", str(odd))
    script = cli("env").stdout + 'printf %s "$OPSMESH_EVIDENCE_DIR"'
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout == str(odd)


def test_foreign_client_connects(cli: Cli, nats_server: server.EmbeddedServer) -> None:
    """Plain nats-py connects with NATS_URL and NATS_CREDS as they are printed."""
    values = json.loads(cli("env", "--json").stdout)

    async def connect() -> str:
        client = await nats.connect(values["NATS_URL"], user_credentials=values["NATS_CREDS"])
        await client.close()
        return "connected"

    assert run(connect()) == "connected"
    assert values["OPSMESH_STREAM_EVENTS"] == "EVENTS"
    assert values["OPSMESH_INGEST_SOCKET"].endswith("/opsmesh/ingest.sock")


def test_context_of_the_nats_command_line(
    cli: Cli, home: Path, nats_server: server.EmbeddedServer
) -> None:
    """--nats-context writes a private file in the format that `nats --context` reads."""
    result = cli("env", "--nats-context", "mine")
    path = home / "config" / "nats" / "context" / "mine.json"
    assert str(path) in result.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    context = json.loads(path.read_text())
    broker = nats_server.broker
    assert (context["url"], context["creds"]) == (broker.url, str(broker.credentials("admin")))


def test_context_name_is_no_path(cli: Cli, nats_server: server.EmbeddedServer) -> None:
    """A name that would leave the folder of contexts is a wrong call."""
    assert cli("env", "--nats-context", "../../evil").exit_code == 2


def test_no_mesh_is_said(cli: Cli) -> None:
    """Before the first `up` there is nothing to print: exit 69 and what to do."""
    result = cli("env")
    assert result.exit_code == 69
    assert "opsmesh up" in result.stderr
