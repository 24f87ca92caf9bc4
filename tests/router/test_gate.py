"""What a viewer and a sink on other machines ask by way of the agent; a handler of its profiles:
tests/handlers/test_of_its_profiles.py."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from tests.conftest import eventually, mesh_client, run
from tests.evidence.sinks import archived, log_file, publish, seqs, sink

from opsmesh.router import connection, paths
from opsmesh.router.auth import creds
from opsmesh.router.auth.reads import REFUSED
from opsmesh.router.auth.store import Store
from opsmesh.router.connection import Endpoint
from opsmesh.router.errors import Unreadable
from opsmesh.router.gate import Gate
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.settings import Settings
from opsmesh.router.topology import EVENTS

USER = "desk-it"


@asynccontextmanager
async def asking(
    broker: EmbeddedServer, folder: Path, role: str
) -> AsyncIterator[tuple[Client, Path]]:
    """The owner's connection with a gate, and credentials of that role on another machine."""
    store = Store(Path(paths.state_dir(), "auth"))
    # the agent of another node of the cluster, which has not heard of the user
    elsewhere = Store(folder / "elsewhere")
    elsewhere.create()
    file = folder / "it.creds"
    file.write_text(store.issue(USER, role=role, host=Settings().host))
    async with mesh_client() as owner:
        await Gate(elsewhere).attach(owner)
        await owner.flush()
        yield owner, file


async def read_by(
    broker: EmbeddedServer, file: Path, what: Callable[[Client], Awaitable[Any]]
) -> Any:
    """What a client of ours gets with these credentials."""
    where = Endpoint(url=broker.broker.url, credentials=file)
    client = await connection.connect(where, name="test", patient=False)
    try:
        return await what(client)
    finally:
        await client.close()


async def _scanned(client: Client) -> list[bytes]:
    return [msg.data async for msg in scan(client, EVENTS)]


async def _newest(client: Client) -> list[bytes]:
    found = await client.jetstream().get_last_msg(EVENTS, "evt.h.a.b", direct=True)
    return [found.data or b""]


async def _first(client: Client) -> list[bytes]:
    return [(await client.jetstream().get_msg(EVENTS, 1)).data or b""]


async def _streams(client: Client) -> list[str]:
    return sorted(one.config.name or "" for one in await client.jetstream().streams_info())


async def _readers(client: Client) -> int:
    js = client.jetstream()
    return len(await js.consumers_info(EVENTS)) + (await js.account_info()).streams


@pytest.mark.parametrize("question", [_scanned, _newest, _first, _streams, _readers])
def test_a_viewer_reads_what_the_owner_reads(
    nats_server: EmbeddedServer, tmp_path: Path, question: Callable[[Client], Awaitable[Any]]
) -> None:
    """A viewer's credentials see all that is stored, by the same calls."""

    async def body() -> None:
        async with asking(nats_server, tmp_path, "viewer") as (owner, file):
            await publish(owner, b"one", b"two")
            seen = await read_by(nats_server, file, question)
            assert seen
            assert seen == await question(owner)

    run(body())


def test_a_viewer_makes_no_reader_that_sends_elsewhere(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """A consumer that is sent somewhere is refused, and the error says what of it."""

    async def body() -> None:
        async with asking(nats_server, tmp_path, "viewer") as (_, file):
            asked = {"stream_name": EVENTS, "config": {"deliver_subject": "ctl.runs.cancel"}}

            async def make(client: Client) -> Any:
                subject = f"$JS.API.CONSUMER.CREATE.{EVENTS}"
                return await client.request(subject, json.dumps(asked).encode(), timeout=60)

            with pytest.raises(Unreadable, match="a reader with deliver_subject"):
                await read_by(nats_server, file, make)

    run(body())


@pytest.mark.parametrize("role", ["viewer", "sink"])
@pytest.mark.parametrize(
    "reply", ["$JS.API.STREAM.DELETE.EVENTS", "evt.elsewhere.a.b", "_INBOX.other.x"]
)
def test_a_thief_has_nothing_answered_elsewhere(
    nats_server: EmbeddedServer, tmp_path: Path, role: str, reply: str
) -> None:
    """The broker answers to whatever subject it is told, and asks no permission for that: by the
    agent an answer goes to whoever asked, and there is no other road."""

    async def body() -> None:
        async with asking(nats_server, tmp_path, role) as (owner, file):
            await publish(owner, b"one")
            heard: list[str] = []
            await owner.subscribe(reply, cb=_noting(heard))
            await owner.flush()
            refused: list[str] = []

            async def error(said: Exception) -> None:
                refused.append(str(said))

            thief = await nats.connect(
                nats_server.broker.url,
                user_credentials=str(file),
                inbox_prefix=f"_INBOX.{USER}",
                error_cb=error,
            )
            try:
                gate = creds.read(file).gate
                nothing = f"API.DIRECT.GET.{EVENTS}.evt.h.nothing"
                await thief.publish(f"$JS.{nothing}", b"", reply=reply)
                await eventually(lambda: refused)
                await thief.publish(f"{gate}{nothing}", b"", reply=reply)
                # its own answer, to what comes after: the other one was looked at
                answer = await thief.request(f"{gate}{nothing}", b"", timeout=60)
                assert REFUSED not in (answer.headers or {})
            finally:
                await thief.close()
            await owner.flush()
            assert heard == []
            assert (await owner.jetstream().stream_info(EVENTS)).state.messages == 1

    run(body())


def _noting(heard: list[str]) -> Callable[[Any], Awaitable[None]]:
    async def note(msg: Any) -> None:
        heard.append(msg.subject)

    return note


def test_a_sink_on_another_machine_archives_by_the_agent(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """With credentials of its own a sink archives everything, in order, and the broker knows."""

    async def body() -> None:
        async with asking(nats_server, tmp_path, "sink") as (owner, file):
            await publish(owner, *(b"%d" % n for n in range(50)))
            elsewhere = {
                "OPSMESH_NATS__URL": nats_server.broker.url,
                "OPSMESH_NATS__CREDENTIALS": str(file),
            }
            with sink(**elsewhere):
                await eventually(lambda: archived(owner))
                assert seqs() == list(range(1, 51))
                await publish(owner, b"another")
                await eventually(lambda: archived(owner))
            assert "denied" not in log_file().read_text()

    run(body())
