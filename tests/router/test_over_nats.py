"""Events from clients that speak NATS and nothing of ours, at a real agent and a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import nats
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.js.errors import NotFoundError
from tests.conftest import PATIENCE, eventually, mesh_client, private_folders, run, start_server
from tests.router.agent_process import agent

from opsmesh.router import paths, server
from opsmesh.router.auth.store import Store
from opsmesh.router.client import Client as AgentClient
from opsmesh.router.settings import Settings

#: A CloudEvent of somebody who knows nothing of us (CloudEvents 1.0.2, JSON format 3.2).
STRANGE: Final = {
    "specversion": "1.0",
    "type": "com.github.pull-request.opened",
    "source": "https://github.com/cloudevents/spec/pull",
    "subject": "123",
    "id": "A234-1234-1234",
    "time": "2026-11-23T17:31:00Z",
    "data": {"url": "https://x:hunter2hunter2@example.org/"},
}


@pytest.fixture(scope="module")
def creds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mesh with an agent, and a producer's credentials for `github.>` and `a.>` of its host."""
    home = tmp_path_factory.mktemp("door")
    with pytest.MonkeyPatch.context() as env:
        private_folders(home, env)
        broker = start_server()
        store = Store(Path(paths.state_dir(), "auth"))
        file = home / "stranger.creds"
        issued = store.issue("stranger", role="producer", host=host(), topics=("github.>", "a.>"))
        file.write_text(issued)
        assert server.reload(broker.broker)
        with agent(home):
            run(listening())
            yield file
        broker.stop()


async def listening() -> None:
    """Return once the agent hears what comes over NATS: it says that it is ready when it has asked
    the broker for that, which may not have read so far."""
    async with mesh_client() as owner:

        async def heard() -> bool:
            try:
                await owner.request(f"ingest.{host()}.a.first", b"{}", timeout=60)
            except NoRespondersError:
                return False
            return True

        await eventually(heard)


def host() -> str:
    return Settings().host


@asynccontextmanager
async def stranger(file: Path) -> AsyncIterator[Client]:
    """Any NATS client, with those credentials."""
    broker = server.known(Path(paths.state_dir()))
    assert broker is not None
    client = await nats.connect(
        broker.url, user_credentials=str(file), inbox_prefix="_INBOX.stranger"
    )
    try:
        yield client
    finally:
        await client.close()


async def asked(client: Client, topic: str, event: dict[str, Any] | bytes) -> dict[str, Any]:
    """The agent's answer."""
    data = event if isinstance(event, bytes) else json.dumps(event).encode()
    answer = await client.request(f"ingest.{host()}.{topic}", data, timeout=60)
    return dict(json.loads(answer.data))


async def stored(subject: str) -> dict[str, Any]:
    """The newest event of a subject."""
    async with mesh_client() as owner:
        found = await owner.jetstream().get_last_msg("EVENTS", subject)
        return dict(json.loads(found.data or b""))


def test_a_strangers_cloudevent(creds: Path) -> None:
    """It is stored as an event of ours, under the topic it was sent to, without its secret."""

    async def body() -> None:
        async with stranger(creds) as client:
            said = await asked(client, "github.pull.opened", STRANGE)
        event = await stored(f"evt.{host()}.github.pull.opened")
        assert said["ok"]
        assert event["id"] == said["id"]
        assert (event["source"], event["component"]) == (STRANGE["source"], "123")
        assert (event["ce_id"], event["ce_type"]) == (STRANGE["id"], STRANGE["type"])
        assert "hunter2" not in json.dumps(event)

    run(body())


def test_sent_twice_it_is_one_event(creds: Path) -> None:
    """Who has heard no answer sends again: source and id are the event."""

    async def body() -> None:
        async with stranger(creds) as client:
            first = await asked(client, "a.b", {**STRANGE, "id": "twice"})
            second = await asked(client, "a.b", {**STRANGE, "id": "twice"})
        assert (second["id"], second["duplicate"]) == (first["id"], True)

    run(body())


def test_over_the_ingest_socket(creds: Path) -> None:
    """The socket takes a CloudEvent as it takes events; its type is the topic."""
    line = json.dumps({**STRANGE, "id": "socket", "_reply": True}).encode()
    client = AgentClient(timeout=PATIENCE)
    answer = json.loads(client.deliver(line, ""))
    client.close()
    event = run(stored(f"evt.{host()}.com.github.pull_request.opened"))
    assert (answer["ok"], answer["id"]) == (True, event["id"])


def test_a_few_fields_are_enough(creds: Path) -> None:
    """What of an envelope is missing is filled in, the topic too."""

    async def body() -> None:
        async with stranger(creds) as client:
            assert (await asked(client, "a.few", {"payload": {"n": 1}, "_coerce": True}))["ok"]
        event = await stored(f"evt.{host()}.a.few")
        assert (event["topic"], event["payload"], event["host"]) == ("a.few", {"n": 1}, host())
        assert "_coerce" not in event

    run(body())


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"topic": "service.start.failed"}, "topic 'service.start.failed' was sent to that of a.x"),
        ({"host": "elsewhere"}, "host 'elsewhere' was sent to that of"),
        ({**STRANGE, "source": "urn:opsmesh:elsewhere:journal"}, "host 'elsewhere'"),
        ({**STRANGE, "specversion": "0.3"}, "specversion '0.3'"),
        ({"topic": 5}, "Expected `str`"),
        (b"no json", "not JSON"),
        (b'{"payload": {"n": "\x80"}}', "not JSON"),
        (b'{"topic": "\x80"}', "codec can't decode"),
        (b"[]", "expected a JSON object"),
    ],
)
def test_what_is_refused(creds: Path, event: dict[str, Any] | bytes, said: str) -> None:
    """What is no event, or another's than where it was sent, is refused to whoever asks."""

    async def body() -> dict[str, Any]:
        async with stranger(creds) as client:
            return await asked(client, "a.x", event)

    answer = run(body())
    assert not answer["ok"]
    assert said in answer["error"]


def test_who_asks_for_no_answer_loses_nothing(creds: Path) -> None:
    """An event is stored, and what is none becomes a dead letter with the reason."""

    async def body() -> None:
        subject = f"ingest.{host()}.a.quiet"
        async with mesh_client() as owner, stranger(creds) as client:
            letters = (await owner.jetstream().stream_info("DLQ")).state.messages
            await client.publish(subject, b'{"payload": {"n": 2}}')
            await client.publish(subject, b'{"topic": "service.start.failed"}')
            await client.flush()

            async def both() -> bool:
                info = await owner.jetstream().stream_info(
                    "EVENTS", subjects_filter=f"evt.{host()}.a.quiet"
                )
                dead = (await owner.jetstream().stream_info("DLQ")).state.messages
                return bool(info.state.subjects) and dead == letters + 1

            await eventually(both)
        assert (await stored(f"evt.{host()}.a.quiet"))["payload"] == {"n": 2}

    run(body())


def test_a_hundred_stay_in_order(creds: Path) -> None:
    """Events of one client are stored in the order of sending."""

    async def body() -> None:
        async with stranger(creds) as client:
            sent = [asked(client, "a.row", {"payload": {"n": n}}) for n in range(100)]
            seqs = [said["seq"] for said in await asyncio.gather(*sent)]
        assert seqs == sorted(seqs)

    run(body())


def test_nobody_answers_for_another_host(creds: Path) -> None:
    """The subjects of a host lead to its own agent alone."""

    async def body() -> None:
        async with mesh_client() as owner:
            with pytest.raises(NoRespondersError):
                await owner.request("ingest.elsewhere.a.b", b"{}", timeout=60)

    run(body())


def test_an_answer_goes_to_an_inbox_alone(creds: Path) -> None:
    """An answer that is wanted at an event's subject, where the sender may not write, is not
    given."""

    async def body() -> None:
        async with mesh_client() as owner:
            trap = f"evt.{host()}.a.trap"
            await owner.publish(f"ingest.{host()}.a.b", b'{"payload": {"n": 3}}', reply=trap)
            await owner.flush()

            async def taken() -> bool:
                try:
                    newest = await stored(f"evt.{host()}.a.b")
                except NotFoundError:  # it is the first
                    return False
                return bool(newest["payload"] == {"n": 3})

            await eventually(taken)
            await asked(owner, "a.after", {})  # whatever was answered before is stored before
            info = await owner.jetstream().stream_info("EVENTS", subjects_filter=trap)
            assert not info.state.subjects

    run(body())
