"""What waits behind a cursor, and where it goes when a profile is enabled."""

from __future__ import annotations

import pytest
from nats.aio.client import Client
from tests.conftest import mesh_client, run

from opsmesh.handlers.live import backlog
from opsmesh.handlers.live.position import Cursor, Fenced, Positions
from opsmesh.handlers.profiles.profile import Profile, from_source
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.stages import Item, Window
from opsmesh.schemas import times

CONSUMER = "profile-note-on-dev"


def profile(**more: object) -> Profile:
    """A profile that listens to a.b and answers to c.d, and looks back at e.f."""
    return from_source(
        "note",
        {
            "on": ["a.b"],
            "where": 'last("e.f") == null || event.payload.x != 1',
            "unless": {"on": ["c.d"], "within": "1m"},
            "actions": [{"command": ["true"]}],
            **more,
        },
    )


async def stored(client: Client, *subjects: str) -> list[int]:
    """Messages with these subjects; when each was stored, in microseconds."""
    js, found = client.jetstream(), []
    for subject in subjects:
        ack = await js.publish(subject, b"{}")
        msg = await js.get_msg("EVENTS", ack.seq)
        assert msg.time is not None
        found.append(round(msg.time.timestamp() * 1e6))
    return found


async def at(client: Client, seq: int, *windows: str, **more: int) -> None:
    """A cursor at `seq` that an owner left, with windows."""
    window = Window(items=(Item("id", "a.b", 1, 1, ()),), opened_us=1, last_us=1, until_us=2)
    cursor = Cursor(seq=seq, owner="dev/1/x", count=1, at_us=1, last=more)
    _, revision = await Positions(client).cursor(CONSUMER)
    await Positions(client).write(CONSUMER, cursor, revision, dict.fromkeys(windows, window))


def test_counted_is_what_it_decides(nats_server: EmbeddedServer) -> None:
    """Events of its topics and answers are counted, on its host; those that it looks back at, other
    hosts' and what is decided are not."""

    async def body() -> None:
        async with mesh_client() as client:
            first, *_ = await stored(
                client,
                *("evt.dev.a.b", "evt.dev.a.b", "evt.dev.c.d", "evt.dev.a.b"),
                *("evt.dev.e.f", "evt.other.a.b", "evt.dev.x.y"),
            )
            await at(client, 1)
            found = await backlog.waiting(client, profile(), consumer=CONSUMER, host="dev")
            assert (found.count, dict(found.topics)) == (3, {"a.b": 2, "c.d": 1})
            assert found.oldest_us is not None
            assert found.oldest_us >= first
            oldest = await backlog.oldest_us(client, profile(), host="dev", after_seq=1)
            assert oldest == found.oldest_us
            assert await backlog.oldest_us(client, profile(), host="dev", after_seq=4) is None
            anywhere = profile(run_on="any")
            found = await backlog.waiting(client, anywhere, consumer=CONSUMER, host="dev")
            assert found.count == 4

    run(body())


@pytest.mark.parametrize(
    ("choice", "seq", "shadow_until", "windows", "newest"),
    [("skip", 5, 0, 0, 4), ("replay", 1, 0, 2, 1), ("shadow", 1, 5, 2, 1), ("since", 3, 0, 0, 2)],
)
def test_cursor_goes_where_it_is_told(
    nats_server: EmbeddedServer,
    choice: backlog.Choice,
    seq: int,
    shadow_until: int,
    windows: int,
    newest: int,
) -> None:
    """Each choice puts the cursor, the end of shadow, the windows and what is looked back at where
    it should."""

    async def body() -> None:
        async with mesh_client() as client:
            await at(client, 1, "unless.k1", "unless.k2", **{'last("e.f")': 1})
            *_, before, _ = await stored(
                client, *("evt.dev.e.f", "evt.dev.e.f", "evt.dev.a.b", "evt.dev.e.f", "evt.dev.a.b")
            )
            look = await backlog.waiting(client, profile(), consumer=CONSUMER, host="dev")
            await backlog.settle(
                client,
                profile(),
                look,
                choice,
                consumer=CONSUMER,
                host="dev",
                since_us=before,
            )
            found, _ = await Positions(client).cursor(CONSUMER)
            assert found is not None
            assert (found.seq, found.shadow_until, found.owner) == (seq, shadow_until, "")
            assert found.last == {'last("e.f")': newest}
            assert len(await Positions(client).windows(CONSUMER)) == windows
            with pytest.raises(Fenced):
                await backlog.settle(client, profile(), look, "skip", consumer=CONSUMER, host="dev")

    run(body())


def test_many_windows_are_forgotten(nats_server: EmbeddedServer) -> None:
    """More windows than one write takes are forgotten too."""

    async def body() -> None:
        async with mesh_client() as client:
            await stored(client, "evt.dev.a.b")
            await at(client, 0, *(f"unless.a{n}" for n in range(700)))
            await at(client, 0, *(f"unless.b{n}" for n in range(700)))
            look = await backlog.waiting(client, profile(), consumer=CONSUMER, host="dev")
            await backlog.settle(client, profile(), look, "skip", consumer=CONSUMER, host="dev")
            assert await Positions(client).windows(CONSUMER) == {}

    run(body())


def test_new_profile_has_no_backlog(nats_server: EmbeddedServer) -> None:
    """Nothing waits for a profile that never decided; it goes back only when a time is given."""

    async def body() -> None:
        async with mesh_client() as client:
            await stored(client, "evt.dev.a.b")
            look = await backlog.waiting(client, profile(), consumer=CONSUMER, host="dev")
            assert (look.cursor, look.count) == (None, 0)

            async def settled(choice: backlog.Choice) -> Cursor | None:
                return await backlog.settle(
                    client, profile(), look, choice, consumer=CONSUMER, host="dev", since_us=1
                )

            assert await settled("replay") is None
            assert (await Positions(client).cursor(CONSUMER))[0] is None
            cursor = await settled("since")
            assert cursor is not None
            assert cursor.seq == 0

    run(body())


def test_time_after_everything(nats_server: EmbeddedServer) -> None:
    """A time after the last event is the stream's end."""

    async def body() -> None:
        async with mesh_client() as client:
            await stored(client, "evt.dev.a.b", "evt.dev.a.b")
            later_us = times.now_us() + 3_600_000_000
            assert await backlog.before(client, later_us) == 2
            assert await backlog.before(client, 1) == 0

    run(body())
