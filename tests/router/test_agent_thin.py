"""The agent of a thin host brings as a producer, hears and asks as what else it was given."""

from __future__ import annotations

import asyncio
import select
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg
from tests.conftest import LOOK, mesh_client, run
from tests.router.agent_process import Connection, agent, until

from opsmesh.router import errands, joined, paths, server
from opsmesh.router.auth.store import Store
from opsmesh.router.joined import Hub
from opsmesh.router.server import EmbeddedServer


@pytest.fixture
def thin(nats_server: EmbeddedServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host `desk`, which has joined this server as a thin one; the streams are there."""

    async def streams() -> None:
        async with mesh_client():
            pass

    run(streams())
    store = Store(Path(paths.state_dir(), "auth"))
    given = {
        f"{role}.creds": store.issue(f"desk-{role}", role=role, host="desk").encode()
        for role in ("producer", "viewer", "handler")
    }
    assert server.reload(nats_server.broker)
    joined.write(Hub(kind="thin", host="desk", urls=[nats_server.broker.url]), given)
    monkeypatch.setenv("OPSMESH_HOST", "desk")
    return home


def test_it_hears_events(thin: Path) -> None:
    """Who follows on the ingest socket of a thin host hears the hub's events."""
    with agent(thin):
        connection = Connection()
        connection.send({"_follow": ["a.>"]})
        assert connection.answer() == {"ok": True, "follow": ["a.>"]}
        other = Connection()

        def heard() -> bool:
            """What is stored before the agent hears the hub does not come by."""
            other.ask({"topic": "a.b"})
            return bool(select.select([connection.socket], [], [], LOOK)[0])

        until(heard)
        while "_missed" in (told := connection.answer()):
            pass  # it may say first that it did not hear from the beginning
        assert told["topic"] == "a.b"


def test_it_asks_handlers(thin: Path, nats_server: EmbeddedServer) -> None:
    """What a desktop of a thin host asks of the handlers reaches them, and their answer it."""

    async def body() -> dict[str, object]:
        where = nats_server.broker
        handlers = await nats.connect(where.url, user_credentials=str(where.credentials("admin")))

        async def answer(message: Msg) -> None:
            await message.respond(b'{"ok":true,"questions":[]}')

        # a stand-in for the handlers, which say what waits
        await handlers.subscribe(errands.QUESTIONS, cb=answer)
        await handlers.flush()
        with agent(thin):
            connection = Connection()
            await asyncio.to_thread(connection.send, b'{"_questions":true}\n')
            found = await asyncio.to_thread(connection.answer)
        await handlers.close()
        return found

    assert run(body()) == {"ok": True, "questions": []}
