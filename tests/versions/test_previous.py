"""What earlier releases have stored is read, decided, archived and resumed by today's code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nats.aio.client import Client

from opsmesh.handlers.evidence.reader import read
from opsmesh.handlers.live.position import Positions
from opsmesh.handlers.live.records import records
from opsmesh.handlers.runs.ledger import Ledger
from opsmesh.router import deadletter, paths
from opsmesh.router.topology import DLQ, EVENTS
from opsmesh.schemas.envelope import decode, encode
from opsmesh.schemas.registry import load_registry
from tests.conftest import eventually, mesh_client, run
from tests.evidence.sinks import sink
from tests.handlers.mesh import mesh
from tests.versions.capture import HOST, PROFILES
from tests.versions.stored import RELEASES, STREAMS, publish, stored

pytestmark = pytest.mark.parametrize("release", RELEASES)


def test_every_event_is_read_in_todays_form(release: str) -> None:
    """An earlier release's event of any topic is decoded, and its payload fits today's type."""
    registry = load_registry()
    for message in stored(release, EVENTS):
        event = registry.upcast(decode(message.data))
        registry.check(event.topic, event.payload)
        assert event.id == message.headers["Nats-Msg-Id"]


def test_no_topic_has_gone(release: str) -> None:
    """A topic of an earlier release is still registered: what was stored of it has a meaning."""
    registry = load_registry()
    topics = {decode(message.data).topic for message in stored(release, EVENTS)}
    assert {t for t in topics if not registry.is_registered(t)} == {
        "acme.every.field",
        "local.told",
    }


def test_no_field_of_an_envelope_is_lost(release: str) -> None:
    """An earlier event written again says all that it said, known fields and unknown ones."""
    whole = [m.data for m in stored(release, EVENTS) if b"acme.every.field" in m.data]
    again = json.loads(encode(decode(whole[0])))
    assert list(again.items()) == list(json.loads(whole[0]).items())
    assert decode(whole[0]).extra == {"acme_field": {"kept": ["as", "it", "is"]}}


@pytest.mark.usefixtures("nats_server")
def test_what_profiles_remember_is_read(release: str) -> None:
    """Runs, dead letters, decisions and cursors of an earlier release are there for today's."""

    async def body() -> None:
        async with mesh_client() as client:
            await publish(client, release, *STREAMS)
            runs = [held async for held in Ledger(client).runs()]
            assert {(held.profile, held.state) for held in runs} == {
                ("told", "succeeded"),
                ("hopeless", "deadlettered"),
            }
            [letter] = [letter async for letter in deadletter.letters(client)]
            assert letter.profile == "hopeless"
            found = [record async for record in records(client)]
            assert sorted(one.decision.outcome for one in found) == ["debounced", "fire", "fire"]
            cursor, _ = await Positions(client).cursor(f"profile-told-on-{HOST}")
            assert cursor is not None
            assert cursor.seq > 0

    run(body())


@pytest.mark.usefixtures("nats_server")
def test_handlers_go_on_where_an_earlier_release_stopped(
    release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that an earlier release has handled is done again; what comes after it is."""
    monkeypatch.setenv("OPSMESH_HOST", HOST)

    async def body() -> None:
        async with mesh_client() as client:
            await publish(client, release, *STREAMS)
        async with mesh(PROFILES) as here:
            event = await here.publish(
                "shell.command.failed", payload={"argv": ["false"], "exit_code": 1}
            )
            seq = (await here.client.jetstream().stream_info(EVENTS)).state.last_seq
            await here.decided("hopeless", seq)
            await eventually(lambda: _count(here.client, DLQ, 2))
            runs = await here.runs()
            assert sorted(one.profile for one in runs) == ["hopeless", "hopeless", "told"]
            assert event.id in {one.event_id for one in runs}

    run(body())


async def _count(client: Client, stream: str, messages: int) -> bool:
    found = await client.jetstream().stream_info(stream)
    return bool(found.state.messages == messages)


@pytest.mark.usefixtures("nats_server")
def test_events_of_an_older_host_are_handled_and_archived(release: str) -> None:
    """A newer hub decides what an older host has published, and archives its very bytes."""
    profile = """
profiles:
  any-host:
    on: [service.start.failed]
    run_on: any
    where: event.host == "elder"
    actions: [emit: {topic: my.answer}]
"""
    sent = [message.data for message in stored(release, EVENTS)]

    async def body() -> None:
        async with mesh(profile) as here:
            await publish(here.client, release, EVENTS)
            await here.wait("my.answer", 2)
            with sink():
                await eventually(lambda: len(_archived(sent)) == len(sent))

    run(body())


def _archived(sent: list[bytes]) -> list[bytes]:
    folder = Path(paths.evidence_dir())
    if not folder.exists():
        return []
    wanted = set(sent)
    return [item.data for item in read(folder) if item.data in wanted]
