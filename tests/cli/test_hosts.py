"""`opsmesh hosts` on one machine; of several: tests/spread."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.cli.conftest import Cli
from tests.conftest import mesh_client, run

from opsmesh.router.server import EmbeddedServer
from opsmesh.schemas import ids, times


async def store(host: str, topic: str, *, ahead_s: float = 0, **payload: str) -> None:
    """An event of that host, as another host's agent would store it."""
    async with mesh_client() as client:
        event = {
            "topic": topic,
            "ts_utc": times.format_us(times.now_us() + round(ahead_s * 1e6)),
            "source": "opsmesh",
            "component": "agent",
            "severity": "info",
            "correlation_id": "c",
            "host": host,
            "session_id": "",
            "workspace": "",
            "payload": payload,
            "id": ids.uuid7(),
        }
        await client.jetstream().publish(f"evt.{host}.{topic}", msgspec.json.encode(event))


def test_a_machine_on_its_own_sees_itself(
    cli: Cli, nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row, with the newest event and the version."""
    monkeypatch.setenv("OPSMESH_HOST", "desk")
    run(store("desk", "deploy.requested"))
    (row,) = json.loads(cli("hosts", "--json").stdout)
    assert (row["host"], row["kind"], row["state"]) == ("desk", "own", "here")
    assert row["last_event"]["topic"] == "deploy.requested"
    assert row["version"]


def test_a_clock_that_is_ahead_is_said(
    cli: Cli, nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that is later than its storing shows by how much."""
    monkeypatch.setenv("OPSMESH_HOST", "desk")
    run(store("lab", "mesh.component.started", ahead_s=90, version="0.0.9"))
    row = next(one for one in json.loads(cli("hosts", "--json").stdout) if one["host"] == "lab")
    assert row["version"] == "0.0.9"
    assert 80 < row["last_event"]["ahead_s"] <= 90
    assert "lab: its clock is ahead by" in cli("hosts").stderr


def test_no_mesh_runs(cli: Cli) -> None:
    """Exit code 69, and what to do."""
    done = cli("hosts")
    assert done.exit_code == 69
    assert "opsmesh up" in done.stderr
