"""The agent with credentials that allow less than what it is brought."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import mesh_client, run
from tests.router.agent_process import Connection, agent, until, wait_drained
from tests.router.test_agent import ids

from opsmesh.router import client, deadletter, paths, server
from opsmesh.router.auth.store import Store
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings

REASON = "the credentials of desk-shell may not publish to evt.desk.a.b"


@pytest.fixture
def desk(nats_server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host `desk`, which may bring events of the shell alone; the streams are there."""

    async def streams() -> None:
        async with mesh_client():
            pass

    run(streams())
    store = Store(Path(paths.state_dir(), "auth"))
    file = home / "desk.creds"
    file.write_text(store.issue("desk-shell", role="producer", host="desk", topics=("shell.>",)))
    assert server.reload(nats_server.broker)  # a producer has an account of its own
    monkeypatch.setenv("OPSMESH_HOST", "desk")
    monkeypatch.setenv("OPSMESH_NATS_URL", nats_server.broker.url)
    monkeypatch.setenv("OPSMESH_NATS__CREDENTIALS", str(file))
    return home


def letters(env: pytest.MonkeyPatch) -> list[str]:
    """The reasons of all dead letters, as the broker's owner sees them."""
    for name in ("OPSMESH_HOST", "OPSMESH_NATS_URL", "OPSMESH_NATS__CREDENTIALS"):
        env.delenv(name, raising=False)

    async def body() -> list[str]:
        async with mesh_client(Settings()) as owner:
            return [letter.reason async for letter in deadletter.letters(owner)]

    found: list[str] = run(body())
    return found


def test_its_caller_is_told(desk: Path) -> None:
    """Who waits for an answer is told what is not allowed; what is allowed is stored."""
    with agent(desk):
        connection = Connection()
        until(lambda: "seq" in connection.ask({"topic": "shell.x"}))
        assert connection.ask({"topic": "a.b"}) == {"ok": False, "error": REASON}


def test_nothing_is_lost_and_nothing_waits(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody waits for, and what was spooled before, becomes a dead letter with the reason;
    what stands behind it goes on."""
    sender = client.Client()
    sender.deliver(b'{"topic": "a.b", "id": "spooled"}', "spooled")
    sender.deliver(b'{"topic": "shell.x", "id": "behind"}', "behind")
    with agent(desk):
        wait_drained()
        connection = Connection()
        connection.send({"topic": "a.b", "id": "unasked"})
        connection.ask({"topic": "shell.x", "id": "after"})
        until(lambda: len(letters(monkeypatch)) >= 2)
    assert letters(monkeypatch) == [REASON, REASON]
    assert ids() == ["behind", "after"]
