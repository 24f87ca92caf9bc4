"""Reading a profile's events: in order, each once, and nothing missed in silence."""

from __future__ import annotations

import json

import pytest
from nats.aio.client import Client
from tests.conftest import mesh_client, run

from opsmesh.handlers.live import reading
from opsmesh.handlers.live.reading import Incoming, Lost, Reading
from opsmesh.router.publish import Message, Publisher
from opsmesh.router.topology import EVENTS
from opsmesh.schemas import ids

pytestmark = pytest.mark.usefixtures("nats_server")

CONSUMER = "profile-read"


async def store(client: Client, count: int) -> None:
    """Some messages for the reader."""
    await Publisher(client).publish_all(
        Message("evt.h.a.b", b"{}", ids.uuid7()) for _ in range(count)
    )


async def steal(client: Client, count: int) -> None:
    """Ask for the consumer's next messages, as a process does that had the position before."""
    asked = json.dumps({"batch": count, "expires": 60_000_000_000}).encode()
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{EVENTS}.{CONSUMER}"
    inbox = client.new_inbox()
    await client.subscribe(inbox)  # the broker answers nobody who does not listen
    await client.publish(subject, asked, reply=inbox)
    await client.flush()


async def read(reader: Reading, count: int) -> list[Incoming]:
    """This many messages; Lost as soon as that is known."""
    found: list[Incoming] = []
    while len(found) < count:
        found += await reader.next(20, 128)
    return found


@pytest.mark.parametrize("more", [1, 0])
def test_a_message_that_went_to_somebody_else_is_missed(
    monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    """What another process took from the consumer is noticed by the next message, or, when none
    follows, by the broker's next sign of life; read again, everything is there."""
    monkeypatch.setattr(reading, "AHEAD", 10)

    async def body() -> None:
        async with mesh_client() as client, mesh_client() as other:
            reader = Reading(client, CONSUMER)
            await store(client, 10)  # at once there: one that came later would be asked for alone
            await reader.start(0, ["evt.*.a.b"])
            first = await read(reader, 10)  # and as long as these are in hand, it asks for no more
            await steal(other, 3)
            await store(client, 3)
            await reader.ack(first[-1], 10)
            await store(client, more)
            with pytest.raises(Lost, match="did not arrive"):
                await read(reader, 3 + more)
            await reader.start(10, ["evt.*.a.b"])
            assert [one.seq for one in await read(reader, 3 + more)] == list(range(11, 14 + more))
            await reader.stop()

    run(body())
