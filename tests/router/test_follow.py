"""Following events on the ingest socket, and asking the handlers through it."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import eventually, mesh_client, run
from tests.router.agent_process import Connection, agent, until

from opsmesh.router.follow import MAX_PATTERNS, MAX_WAITING, Follower, Followers
from opsmesh.router.server import EmbeddedServer
from opsmesh.router.topology import TRIGGERS


def event(topic: str, text: str = "x") -> dict[str, Any]:
    return {"topic": topic, "payload": {"text": text}}


def follow(client: Connection, *patterns: str) -> dict[str, Any]:
    """Ask to follow; the answer."""
    client.send(b'{"_follow":%s}\n' % json.dumps(patterns).encode())
    return client.answer()


def test_followed_events_come_once_and_others_do_not(
    nats_server: EmbeddedServer, home: Path
) -> None:
    """A pattern brings its events, two that overlap bring an event once, an empty list ends it."""
    with agent(home):
        ear, mouth = Connection(), Connection()
        try:
            assert follow(ear, "demo.>", "demo.one.*")["ok"] is True
            for topic in ("other.one.a", "demo.one.a", "demo.two.b"):
                assert mouth.ask(event(topic))["ok"] is True
            assert [ear.answer()["topic"] for _ in range(2)] == ["demo.one.a", "demo.two.b"]
            assert follow(ear)["follow"] == []
            mouth.ask(event("demo.one.c"))
            assert ear.ask(event("other.one.b"))["ok"] is True  # the next line is this answer
        finally:
            ear.close()
            mouth.close()


def test_nothing_is_subscribed_while_nobody_follows(
    nats_server: EmbeddedServer, home: Path
) -> None:
    """The broker knows of a pattern from its first follower to its last one."""

    async def body() -> None:
        async with mesh_client() as client:
            followers = Followers()
            await followers.attach(client)
            before = len(client._subs)
            one, other = Outlet(), Outlet()
            await followers.ask(b'{"_follow":["demo.>"]}', one)
            await followers.ask(b'{"_follow":["demo.>","more.a"]}', other)
            assert followers.patterns == {"demo.>", "more.a"}
            assert len(client._subs) == before + 2
            await followers.leave(other)
            assert followers.patterns == {"demo.>"}
            await followers.leave(one)
            assert followers.patterns == frozenset()
            assert len(client._subs) == before

    run(body())


@pytest.mark.parametrize(
    "wrong",
    [
        b'{"_follow":"demo.>"}',
        b'{"_follow":["demo..x"]}',
        b'{"_follow":["demo.>.x"]}',
        b'{"_follow":["demo x"]}',
        b'{"_follow":["demo.x\\r\\nPUB evt.a.b 0"]}',
        b'{"_follow":[7]}',
        b'{"_follow":["' + b"x" * 300 + b'"]}',
        b'{"_follow":' + json.dumps(["a.b"] * (MAX_PATTERNS + 1)).encode() + b"}",
        b'{"_follow":',
    ],
)
def test_what_is_no_pattern_is_refused(wrong: bytes) -> None:
    """The answer says no, and nothing is followed."""
    followers = Followers()
    answer = json.loads(run(followers.ask(wrong, Outlet())))
    assert answer["ok"] is False
    assert answer["error"]
    assert len(followers) == 0


def test_a_slow_reader_is_told_how_many_it_missed(nats_server: EmbeddedServer, home: Path) -> None:
    """A follower that does not read holds nobody up, and every event is given or counted."""
    with agent(home):
        ear, mouth = Connection(), Connection()
        try:
            follow(ear, "demo.>")
            began = time.monotonic()
            for _ in range(100):
                assert mouth.ask(event("demo.one.a", "x" * 20_000))["ok"] is True
            assert time.monotonic() - began < 60  # held up, each would wait for its time-out
            got = missed = 0
            while got + missed < 100:
                line = ear.answer()
                got, missed = got + ("topic" in line), missed + line.get("_missed", 0)
            assert missed > 0
            assert got > 0
            mouth.ask(event("demo.one.b"))
            assert ear.answer()["topic"] == "demo.one.b"
        finally:
            ear.close()
            mouth.close()


def test_after_the_broker_was_away_followers_are_told(
    nats_server: EmbeddedServer, home: Path
) -> None:
    """Nobody knows what was missed; from then on events come again."""
    with agent(home):
        ear, mouth = Connection(), Connection()
        try:
            follow(ear, "demo.>")
            nats_server.kill()
            until(lambda: mouth.ask(event("demo.one.a")).get("spooled"))
            nats_server.start()
            lines = [ear.answer(), ear.answer()]
            assert {"_missed": None} in lines
            until(lambda: mouth.ask(event("demo.one.b")).get("seq"))
            while ear.answer().get("topic") != "demo.one.b":
                pass
        finally:
            ear.close()
            mouth.close()


def test_who_hangs_up_at_once_follows_no_more(nats_server: EmbeddedServer, home: Path) -> None:
    """A client that asks and is gone leaves nothing behind."""
    with agent(home):
        for _ in range(50):
            client = Connection()
            client.send(b'{"_follow":["demo.>"]}\n')
            client.close()
        asking = Connection()
        try:

            def followers() -> int:
                asking.send(b'{"_status":true}\n')
                return int(asking.answer()["agent"]["followers"])

            until(lambda: followers() == 0)
            assert follow(asking, "demo.>")["ok"] is True
            assert followers() == 1
        finally:
            asking.close()


def test_errands_are_refused_without_handlers_or_broker(
    nats_server: EmbeddedServer, home: Path
) -> None:
    """Each is answered, with the reason; nothing is kept for later."""
    with agent(home):
        client = Connection()
        try:
            for line in (b'{"_questions":true}\n', b'{"_answer":{"run":"x","choice":"skip"}}\n'):
                client.send(line)
                assert "handlers" in client.answer()["error"]
            for name in ('"a.b"', '"a b"', '">"', "7", '""'):
                client.send(b'{"_run":{"profile":%s}}\n' % name.encode())
                assert "profile" in client.answer()["error"]
            for more in (b'"id":"a b"', b'"id":7', b'"args":[1]', b'"widget":7', b'"source":[1]'):
                client.send(b'{"_run":{"profile":"deploy",%s}}\n' % more)
                answer = client.answer()
                assert answer["ok"] is False
                assert "its log" not in answer["error"], answer
            for line in (b'{"_run"\n', b'{"_answer":}\n', b'{"_questions":' + b"[" * 9000 + b"\n"):
                client.send(line)
                assert "its log" not in client.answer()["error"]
            client.send(b'{"_run":{"profile":"deploy"}}\n')
            assert "handlers" in client.answer()["error"]
            assert run(waiting()) == 0  # it would begin whenever handlers come
            nats_server.kill()
            until(lambda: client.ask(event("demo.one.a")).get("spooled"))
            client.send(b'{"_run":{"profile":"deploy"}}\n')
            assert "broker is away" in client.answer()["error"]
        finally:
            client.close()


async def waiting() -> int:
    """How many triggers lie in their queue."""
    async with mesh_client() as client:
        return (await client.jetstream().stream_info(TRIGGERS)).state.messages


class Outlet:
    """A follower's end that is never read while `full`."""

    def __init__(self, full: bool = False) -> None:
        self.lines: list[bytes] = []
        self.full = full
        self.transport: Any = self
        self._room = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return MAX_WAITING if self.full else 0

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.lines.append(data)

    async def drain(self) -> None:
        await eventually(lambda: not self.full)


def test_the_count_is_exact() -> None:
    """Seven events left out are seven, told once, before the next event."""

    async def body() -> list[bytes]:
        outlet = Outlet(full=True)
        follower = Follower(outlet, ("demo.>",))
        for _ in range(7):
            follower.give(b"{}\n")
        outlet.full = False
        await eventually(lambda: outlet.lines)
        follower.give(b'{"topic":"demo.a"}\n')
        return outlet.lines

    assert run(body()) == [b'{"_missed":7}\n', b'{"topic":"demo.a"}\n']
