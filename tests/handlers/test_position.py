"""Positions on a real server: one writer, all or nothing, and nothing lost between two owners."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from nats.aio.client import Client
from tests.conftest import mesh_client, restart, run

from opsmesh.handlers.live.position import KEEP_S, Cursor, Fenced, Positions
from opsmesh.router.kv import Bucket
from opsmesh.router.scan import scan
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.stages import Item, Window
from opsmesh.router.topology import WINDOWS

S = 1_000_000
ME = "profile-p"
#: One with a timer, one that ends by itself, one of an ordered sequence.
HELD = {
    "debounce.k1": Window(
        opened_us=1,
        last_us=2,
        until_us=30 * S,
        due_us=30 * S,
        count=1,
        items=(Item("e1", "t.a", 7, 2, ("debounce.k1", "throttle.k2")),),
    ),
    "throttle.k2": Window(opened_us=1, last_us=1, until_us=60 * S, passed_us=(1, 5)),
    "correlate.k3": Window(
        opened_us=1, last_us=1, until_us=9, chains=((Item("e2", "t.b", 8, 1, ()),), ())
    ),
}


@asynccontextmanager
async def positions() -> AsyncIterator[tuple[Positions, Client]]:
    async with mesh_client() as client:
        yield Positions(client), client


def cursor(owner: str, seq: int, *, count: int = 0) -> Cursor:
    return Cursor(seq=seq, owner=owner, count=count, at_us=123)


def test_nobody_has_been_there(nats_server: EmbeddedServer) -> None:
    """A consumer without a position has no cursor, and its first revision is 0."""

    async def body() -> None:
        async with positions() as (mine, _):
            assert await mine.cursor(ME) == (None, 0)
            assert await mine.windows(ME) == {}
            full = msgspec.structs.replace(
                cursor("a", 5), shadow_until=9, last={'last("t.b", "any")': 3}
            )
            revision = await mine.write(ME, full, 0)
            assert await mine.cursor(ME) == (full, revision)

    run(body())


def test_windows_survive(nats_server: EmbeddedServer) -> None:
    """Who takes the position over finds every window as it was written, also by another client."""

    async def body() -> None:
        async with positions() as (mine, client):
            revision = await mine.write(ME, cursor("a", 1), 0, HELD)
            await restart(client, nats_server)
            async with positions() as (theirs, _):
                found, at = await theirs.cursor(ME)
                assert (found, at) == (cursor("a", 1), revision)
                assert await theirs.windows(ME) == HELD

    run(body())


def test_a_later_commit_changes_what_it_names(nats_server: EmbeddedServer) -> None:
    """A commit replaces and removes windows; removed ones leave no trace for the next owner."""

    async def body() -> None:
        async with positions() as (mine, _):
            revision = await mine.write(ME, cursor("a", 1), 0, HELD)
            moved = msgspec.structs.replace(HELD["throttle.k2"], passed_us=(1, 5, 9))
            changes = {"throttle.k2": moved, "debounce.k1": None, "collect.never": None}
            revision = await mine.write(ME, cursor("a", 2, count=1), revision, changes)
            kept = {"throttle.k2": moved, "correlate.k3": HELD["correlate.k3"]}
            assert await mine.windows(ME) == kept
            back = {"debounce.k1": HELD["debounce.k1"]}
            await mine.write(ME, cursor("a", 3, count=2), revision, back)
            assert await mine.windows(ME) == kept | back

    run(body())


def test_a_replaced_owner_is_fenced(nats_server: EmbeddedServer) -> None:
    """Who was replaced without knowing it writes nothing any more, and is told so."""

    async def body() -> None:
        async with positions() as (old, _), positions() as (new, _):
            before = await old.write(ME, cursor("old", 1), 0, HELD)
            found, revision = await new.cursor(ME)
            assert found is not None
            taken = cursor("new", found.seq, count=1)
            revision = await new.write(ME, taken, revision)
            for _ in range(2):
                with pytest.raises(Fenced, match=f"another process decides for {ME} now") as caught:
                    await old.write(ME, cursor("old", 2, count=1), before, {"debounce.k1": None})
                assert caught.value.consumer == ME
            assert await new.cursor(ME) == (taken, revision)
            assert await new.windows(ME) == HELD
            await new.write(ME, cursor("new", 2, count=2), revision, {"debounce.k1": None})

    run(body())


def test_of_two_who_take_it_one_has_it(nats_server: EmbeddedServer) -> None:
    """Of two owners that found the same position, the second is fenced."""

    async def body() -> None:
        async with positions() as (one, _), positions() as (other, _):
            revision = await one.write(ME, cursor("one", 0), 0)
            with pytest.raises(Fenced):
                await other.write(ME, cursor("other", 0), 0, HELD)
            assert await other.windows(ME) == {}
            assert await other.cursor(ME) == (cursor("one", 0), revision)

    run(body())


def test_a_lost_answer(nats_server: EmbeddedServer) -> None:
    """A commit whose answer was lost is written again as it was: it stands once, and goes on."""

    async def body() -> None:
        async with positions() as (mine, client):
            before = await mine.write(ME, cursor("a", 1), 0)
            commit = cursor("a", 2, count=1)
            written = await mine.write(ME, commit, before, HELD)
            js = client.jetstream()
            state = (await js.stream_info(Bucket(client, WINDOWS).stream)).state
            assert await mine.write(ME, commit, before, HELD) == written
            assert (await js.stream_info(Bucket(client, WINDOWS).stream)).state == state
            await mine.write(ME, cursor("a", 3, count=2), written)
            with pytest.raises(Fenced):
                await mine.write(ME, commit, before, HELD)

    run(body())


def test_how_long_windows_are_kept(nats_server: EmbeddedServer) -> None:
    """A window with a timer stays until it is removed; another goes some time after its end."""

    async def body() -> None:
        async with positions() as (mine, client):
            await mine.write(ME, cursor("a", 1), 0, HELD)
            bucket = Bucket(client, WINDOWS)
            ttls = {
                bucket.key(msg.subject): (msg.headers or {}).get("Nats-TTL")
                async for msg in scan(client, bucket.stream)
            }
            assert ttls == {
                f"{ME}.cursor": None,
                f"{ME}.w.debounce.k1": None,
                f"{ME}.w.throttle.k2": str(round(KEEP_S + 60)),
                f"{ME}.w.correlate.k3": str(round(KEEP_S)),
            }

    run(body())


def test_forget(nats_server: EmbeddedServer) -> None:
    """To forget a consumer removes all of it, and nothing of one whose name begins alike."""

    async def body() -> None:
        async with positions() as (mine, _):
            other = f"{ME}2"
            await mine.write(ME, cursor("a", 1), 0, HELD)
            kept = await mine.write(other, cursor("a", 1), 0, HELD)
            await mine.forget(ME)
            assert await mine.cursor(ME) == (None, 0)
            assert await mine.windows(ME) == {}
            assert await mine.cursor(other) == (cursor("a", 1), kept)
            assert await mine.windows(other) == HELD
            await mine.write(ME, cursor("b", 1), 0, HELD)
            assert await mine.windows(ME) == HELD

    run(body())


def test_many_windows(nats_server: EmbeddedServer) -> None:
    """Thousands of windows come back, over as many commits as they need."""

    async def body() -> None:
        async with positions() as (mine, _):
            window = HELD["throttle.k2"]
            revision = 0
            for part in range(4):
                changes = {f"throttle.{part}-{n}": window for n in range(900)}
                revision = await mine.write(ME, cursor("a", part, count=part), revision, changes)
            assert len(await mine.windows(ME)) == 3600

    run(body())
