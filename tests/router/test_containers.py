"""Whether a container is well, and how the mesh in containers looks from the host."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.conftest import PATIENCE, run

from opsmesh.router import connection, paths, ports, probes, running, server, supervisor_state
from opsmesh.router.containers import health, look
from opsmesh.router.settings import Settings


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a broker may take more than half a second to answer."""
    monkeypatch.setattr(probes, "PATIENCE", PATIENCE)
    monkeypatch.setattr(health, "PATIENCE", PATIENCE)


@pytest.fixture
def contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container of the mesh's own."""
    monkeypatch.setenv(ports.ADDRESS_VARIABLE, "localhost")


def connected(name: str) -> str:
    """What is wrong with a component while one of that name is connected."""

    async def ask() -> str:
        client = await connection.connect(connection.endpoint(Settings(), role="admin"), name=name)
        try:
            return health.trouble("sink")
        finally:
            await client.close()

    return str(run(ask()))


def test_connected(nats_server: server.EmbeddedServer, contained: None) -> None:
    """A component is well once it is connected to a broker that serves, and syncs every write."""
    assert connected("handlers") == "sink is not connected to the broker"
    assert connected("sink") == ""


def test_broker_away(nats_server: server.EmbeddedServer, contained: None) -> None:
    """No component is well without its broker."""
    nats_server.stop()
    assert health.trouble("sink").startswith("no answer: ")
    assert health.main(["sink"]) == 1


def test_agent_is_asked_itself(nats_server: server.EmbeddedServer, contained: None) -> None:
    """An agent whose socket nobody listens at is not well, whatever the broker says."""
    assert health.trouble("agent").startswith("no answer: ")


def test_not_durable(
    nats_server: server.EmbeddedServer, contained: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broker that acknowledges before data is on disk makes its containers unwell."""
    nats_server.stop()
    config = nats_server.broker.config
    config.write_text(config.read_text().replace('"always"', '"2m"'))
    with pytest.raises(Exception, match="before data is on disk"):
        nats_server.start()
    assert health.main(["sink"]) == 1
    assert "before data is on disk" in capsys.readouterr().out


def test_another_broker(home: Path) -> None:
    """A broker that is not ours is not asked: its monitor is not for us."""
    assert health.trouble("sink") == ""


def test_unknown_component(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call is told, with what can be asked for."""
    assert health.main(["nats"]) == 2
    assert "agent|handlers|sink" in capsys.readouterr().out


def test_address(nats_server: server.EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container our broker is found under the name that it was told."""
    monkeypatch.setenv(ports.ADDRESS_VARIABLE, "nats")
    broker = server.known(Path(paths.state_dir()))
    assert broker is not None
    assert broker.url.startswith("nats://nats:")
    assert broker.monitor_url.startswith("http://nats:")


def test_seen_from_the_host(nats_server: server.EmbeddedServer) -> None:
    """On the host the broker says which components are connected; what is not is stopped."""
    assert look.components() is None  # a broker alone is no mesh in containers
    look.folder().mkdir()

    async def seen() -> list[supervisor_state.Status] | None:
        client = await connection.connect(
            connection.endpoint(Settings(), role="admin"), name="sink"
        )
        try:
            return look.components()
        finally:
            await client.close()

    found = {one.name: one for one in run(seen()) or ()}
    assert {name: one.state for name, one in found.items()} == {
        "broker": "running",
        "agent": "stopped",
        "handlers": "stopped",
        "sink": "running",
    }
    assert found["sink"].since
    assert running.mesh() is not None
    nats_server.stop()
    assert running.mesh() is None


def test_what_only_serves(capsys: pytest.CaptureFixture[str]) -> None:
    """The page is well while something answers on its port, and a port that is silent is named."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_port)
        assert health.main([port]) == 0
        server.shutdown()
    assert health.main([port]) == 1
    assert port in capsys.readouterr().out


def test_costs_little() -> None:
    """A health check, which runs for as long as the mesh does, loads no client and no settings."""
    loaded = "import sys, opsmesh.router.containers.health; print(*sys.modules)"
    argv = [sys.executable, "-c", loaded]
    modules = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert not {"nats", "pydantic", "msgspec", "asyncio", "urllib.request"} & set(modules)
